"""The models that are measured, each with a batch and a loss, and the sides that train them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import crowdtrain as ct
import numpy as np
import torch
import torch.nn.functional as F
from crowdtrain_engine import Executor
from torch import Tensor, nn
from zoo.language import GPT, Llama, TaggingLSTM, next_token_loss
from zoo.vision import CNN, MLP, ResNet

__all__ = ["CASES", "MAX_STEPS", "Case", "Eager", "Lowered", "Ours", "Side"]

MAX_STEPS = 1 << 14
"""Steps between two resets, at most: ``order`` has a row for each."""
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Case:
    """A model with a batch and a loss, trained by AdamW."""

    model: Callable[[], nn.Module]
    batch: Callable[[], tuple[Tensor, Tensor]]
    loss: Callable[[Tensor, Tensor], Tensor]

    def make(self) -> tuple[nn.Module, Tensor, Tensor]:
        """The model in training mode, inputs, and targets; the same whenever it is called."""
        torch.manual_seed(0)
        return self.model().train(), *self.batch()


def tokens(vocabulary: int, batch: int, length: int) -> Callable[[], tuple[Tensor, Tensor]]:
    """Random text."""
    return lambda: (torch.randint(vocabulary, (batch, length)), torch.randint(vocabulary, (batch, length)))


def images(batch: int, *shape: int) -> Callable[[], tuple[Tensor, Tensor]]:
    """Random images of ten classes."""
    return lambda: (torch.randn(batch, *shape), torch.randint(10, (batch,)))


CASES: dict[str, Case] = {
    "MLP": Case(lambda: MLP(64, 256, 256, 10), images(64, 64), F.cross_entropy),
    "CNN": Case(CNN, images(64, 1, 28, 28), F.cross_entropy),
    "ResNet": Case(lambda: ResNet(64, (1, 1)), images(32, 3, 32, 32), F.cross_entropy),
    "GPT-0.8M": Case(lambda: GPT(65, 128, 4, 4, 64), tokens(65, 16, 64), next_token_loss),
    "GPT-5M": Case(lambda: GPT(256, 256, 6, 8, 128), tokens(256, 16, 128), next_token_loss),
    "GPT-11M": Case(lambda: GPT(256, 384, 6, 6, 128), tokens(256, 16, 128), next_token_loss),
    "Llama-5M": Case(lambda: Llama(256, 256, 6, 8, 2, 704, 128), tokens(256, 16, 128), next_token_loss),
    "LSTM": Case(lambda: TaggingLSTM(65, 128, 2), tokens(65, 32, 32), next_token_loss),
}


class Side:
    """One way to train a case. Every reset begins with the same weights and fresh moments."""

    def reset(self) -> None:
        """Goes back to before the first step."""
        raise NotImplementedError

    def step(self) -> None:
        """Trains one step."""
        raise NotImplementedError

    def loss(self) -> float:
        """Trains one step; its loss."""
        raise NotImplementedError


class Lowered:
    """A case's program and its data: ``steps`` of them on the same batch."""

    def __init__(self, case: Case, steps: int = MAX_STEPS) -> None:
        model, x, y = case.make()
        self.data = ct.Dataset(x.numpy(), y.numpy(), order=np.tile(np.arange(len(x)), (steps, 1)))
        lowered = ct.lower(model, case.loss, optimizer=ct.optim.AdamW(lr=LEARNING_RATE), example=(x, y))
        self.program = lowered.bind(self.data.rows)
        self.state = lowered.initial_state()
        self.parameters = sum(parameter.numel() for parameter in model.parameters())


class Ours(Side):
    """The native engine."""

    def __init__(self, lowered: Lowered, threads: int) -> None:
        self._initial = lowered.state
        self.executor = Executor(lowered.program, lowered.state, lowered.data, threads=threads)

    def reset(self) -> None:
        self.executor.state = self._initial

    def step(self) -> None:
        self.executor.run(1)

    def loss(self) -> float:
        return float(self.executor.run(1)["loss"][0])


class Eager(Side):
    """Eager PyTorch, or with ``compiled`` what ``torch.compile`` makes of model and loss."""

    def __init__(self, case: Case, threads: int, *, compiled: bool = False) -> None:
        self._threads = threads
        self._model, self._x, self._y = case.make()
        self._initial = {name: tensor.clone() for name, tensor in self._model.state_dict().items()}
        self._case, self._compiled = case, compiled
        self.reset()

    @cached_property
    def _measure(self) -> Callable[[Tensor, Tensor], Tensor]:
        def measure(x: Tensor, y: Tensor) -> Tensor:
            return self._case.loss(self._model(x), y)

        return torch.compile(measure) if self._compiled else measure

    def reset(self) -> None:
        torch.set_num_threads(self._threads)
        self._model.load_state_dict(self._initial)
        self._optimizer = torch.optim.AdamW(self._model.parameters(), lr=LEARNING_RATE)

    def step(self) -> None:
        self._step()

    def loss(self) -> float:
        return self._step().item()

    def _step(self) -> Tensor:
        self._optimizer.zero_grad()
        loss = self._measure(self._x, self._y)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return loss.detach()
