"""Fine-tuning with low-rank adapters: a trained classifier of digits learns to read them mirrored.

The classifier is trained first, as anywhere. Then its weights are frozen, and next to each matrix W stands a product of
two thin ones, of which only those are trained: W x + (alpha / rank) · B A x (Hu and others, "LoRA", 2021, arXiv
2106.09685). B starts as 0, so training starts from the classifier as it is. In the end the products are added to the
weights. Run it with ``python examples/lora.py``.
"""

from __future__ import annotations

import crowdtrain as ct
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import nn

BATCH = 32
STEPS = 200
RANK = 4


class Adapted(nn.Module):
    """A linear layer whose own weights stay as they are, with an adapter."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float = 8.0) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(rank, base.in_features) / base.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(base.out_features, rank))
        self.scale = alpha / rank

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.base(x) + self.scale * (x @ self.down.T @ self.up.T)
        return result

    def merged(self) -> nn.Linear:
        """The same function as one linear layer."""
        with torch.no_grad():
            self.base.weight += self.scale * self.up @ self.down
        return self.base


def adapted(model: nn.Sequential, rank: int) -> nn.Sequential:
    """``model`` with an adapter beside every linear layer."""
    return nn.Sequential(*(Adapted(part, rank) if isinstance(part, nn.Linear) else part for part in model))


def merged(model: nn.Sequential) -> nn.Sequential:
    """``model`` without adapters, which are added to the weights."""
    return nn.Sequential(*(part.merged() if isinstance(part, Adapted) else part for part in model))


def train(model: nn.Module, images: torch.Tensor, classes: torch.Tensor) -> ct.State:
    """Trains, in place, what requires a gradient; the state afterwards."""
    program = ct.lower(
        model,
        F.cross_entropy,
        optimizer=ct.optim.AdamW(lr=ct.optim.warmup_cosine(1e-2, warmup=20, total=STEPS)),
        example=(images[:BATCH], classes[:BATCH]),
        clip_grad_norm=1.0,
    )
    order = np.random.default_rng(0).integers(0, len(images), (STEPS, BATCH))
    data = ct.Dataset(images.numpy(), classes.numpy(), order=order)
    state, _ = ct.execute(program, program.initial_state(), data, steps=STEPS)
    ct.load_into(model, state)
    return state


def right(output: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """How many samples of a batch are classified rightly."""
    return (output.argmax(-1) == classes).sum()


def accuracy(model: nn.Module, images: torch.Tensor, classes: torch.Tensor) -> float:
    """Share of images that ``model`` classifies rightly, as an evaluation program counts them."""
    steps = len(images) // BATCH
    program = ct.lower_evaluation(model, {"right": right}, example=(images[:BATCH], classes[:BATCH]))
    order: NDArray[np.int64] = np.arange(steps * BATCH).reshape(steps, BATCH)
    data = ct.Dataset(images.numpy(), classes.numpy(), order=order)
    state, _ = ct.execute(program, program.initial_state(), data, steps=steps)
    return float(state["totals"]["right"]) / (steps * BATCH)


def main() -> dict[str, float]:
    """The whole story; accuracies on images that were not trained on."""
    torch.manual_seed(0)
    pixels, numbers = load_digits(return_X_y=True)
    images, classes = torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(numbers)
    mirrored = images.reshape(-1, 8, 8).flip(-1).reshape(-1, 64)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))

    train(model, images[:1400], classes[:1400])
    results = {
        "the classifier": accuracy(model, images[1400:], classes[1400:]),
        "mirrored images": accuracy(model, mirrored[1400:], classes[1400:]),
    }
    tuned = adapted(model, RANK)
    trained = sum(p.numel() for p in tuned.parameters() if p.requires_grad)
    print(f"training {trained:,} of {sum(p.numel() for p in tuned.parameters()):,} parameters")
    train(tuned, mirrored[:1400], classes[:1400])
    results["mirrored, with adapters"] = accuracy(tuned, mirrored[1400:], classes[1400:])
    results["mirrored, adapters merged"] = accuracy(merged(tuned), mirrored[1400:], classes[1400:])
    return results


if __name__ == "__main__":
    for name, share in main().items():
        print(f"{name:26} {share:.1%}")
