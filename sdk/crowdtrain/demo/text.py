"""Text to train on, and small models of it: characters of Python's own sources, which every machine has."""

from __future__ import annotations

import sysconfig
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

__all__ = ["CONTEXT", "CharGPT", "Text", "cross_entropy", "documentation", "order", "sample", "text"]

CONTEXT = 64
"""characters that the model sees"""
_BYTES = 3_000_000
_HELD_OUT = 0.1
_FREQUENT = 95


@dataclass(frozen=True)
class Text:
    """Characters by number, in windows of ``CONTEXT``: inputs, and the same moved on by one as targets."""

    alphabet: str
    train: NDArray[np.int32]
    held_out: NDArray[np.int32]

    @property
    def size(self) -> int:
        """Number of different characters."""
        return len(self.alphabet)

    @staticmethod
    def windows(characters: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Inputs and targets, ``[n, CONTEXT]`` each."""
        count = (len(characters) - 1) // CONTEXT
        ends = count * CONTEXT
        return characters[:ends].reshape(count, CONTEXT), characters[1 : ends + 1].reshape(count, CONTEXT)


@cache
def text() -> Text:
    """The first megabytes of the standard library's modules; rare characters are one."""
    folder = Path(sysconfig.get_path("stdlib"))
    whole = ""
    for path in sorted(folder.glob("*.py")):
        whole += path.read_text(encoding="utf-8", errors="replace")
        if len(whole) >= _BYTES:
            break
    whole = whole[:_BYTES]
    found, counts = np.unique(np.frombuffer(whole.encode("utf-32-le"), np.uint32), return_counts=True)
    frequent = np.sort(found[np.argsort(-counts)[:_FREQUENT]])
    numbers = {chr(code): i for i, code in enumerate(frequent)}
    return _split("".join(numbers) + "\ufffd", whole)


@cache
def documentation() -> Text:
    """What ``help()`` says about the language: English, in the alphabet of :func:`text`."""
    return _split(text().alphabet, "\n\n".join(topics.values()))


def _split(alphabet: str, whole: str) -> Text:
    """The last character of ``alphabet`` stands for those that are not in it."""
    numbers = {character: i for i, character in enumerate(alphabet)}
    characters = np.array([numbers.get(character, len(alphabet) - 1) for character in whole], np.int32)
    cut = int(len(characters) * (1 - _HELD_OUT))
    return Text(alphabet, characters[:cut], characters[cut:])


def order(windows: int, steps: int, batch: int, seed: int) -> NDArray[np.uint32]:
    """Which windows each step reads, ``[steps, batch]``: all of them before one comes again."""
    rng = np.random.default_rng(seed)
    needed = steps * batch
    permutations = [rng.permutation(windows) for _ in range(-(-needed // windows))]
    return np.concatenate(permutations)[:needed].reshape(steps, batch).astype(np.uint32)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, t, width = x.shape
        q, k, v = (
            part.view(n, t, self.heads, -1).transpose(1, 2)
            for part in self.qkv(self.norm1(x)).split(width, -1)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(n, t, width))
        hidden: torch.Tensor = x + self.down(F.gelu(self.up(self.norm2(x))))
        return hidden


class CharGPT(nn.Module):
    """A GPT over characters."""

    def __init__(self, characters: int, *, width: int = 64, layers: int = 2, heads: int = 4) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(characters, width), nn.Embedding(CONTEXT, width)
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, characters, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02 if isinstance(module, nn.Embedding) else width**-0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.token(x) + self.place.weight[: x.shape[1]]
        for block in self.blocks:
            hidden = block(hidden)
        logits: torch.Tensor = self.head(self.norm(hidden))
        return logits


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Nats for each character."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def sample(
    model: CharGPT, words: Text, length: int, *, start: str = "\n", temperature: float = 0.7, seed: int = 0
) -> str:
    """``length`` characters that the model writes after ``start``."""
    generator = torch.Generator().manual_seed(seed)
    written = [words.alphabet.index(character) for character in start]
    model.eval()
    with torch.no_grad():
        for _ in range(length):
            logits = model(torch.tensor([written[-CONTEXT:]]))[0, -1] / temperature
            written.append(int(torch.multinomial(logits.softmax(0), 1, generator=generator)))
    return "".join(words.alphabet[number] for number in written)
