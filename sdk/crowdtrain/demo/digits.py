"""What the demo trains: a convolutional network on scikit-learn's handwritten digits."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional

__all__ = [
    "LEARNING_RATE",
    "WEIGHT_DECAY",
    "Digits",
    "accuracy",
    "load",
    "network",
    "sample_order",
    "train_in_torch",
]

LEARNING_RATE = 2e-3
WEIGHT_DECAY = 1e-2


@dataclass(frozen=True)
class Digits:
    """Images ``[n, 1, 8, 8]`` between 0 and 1, classes ``[n]``: 1,437 to train on and 360 held out."""

    images: NDArray[np.float32]
    classes: NDArray[np.int32]
    held_out_images: NDArray[np.float32]
    held_out_classes: NDArray[np.int32]


def load(seed: int = 0) -> Digits:
    """The digits, shuffled and split once by ``seed``, the classes in equal parts."""
    images, classes = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    train_x, test_x, train_y, test_y = train_test_split(
        images, classes.astype(np.int32), test_size=360, random_state=seed, stratify=classes
    )
    return Digits(train_x, train_y, test_x, test_y)


def network(seed: int = 0) -> nn.Module:
    """Three convolutions with batch norm, two poolings, a linear head: about 25,000 parameters."""
    torch.manual_seed(seed)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, (channels_in, channels) in enumerate([(1, 16), (16, 32), (32, 32)], start=1):
        layers[f"conv{number}"] = nn.Conv2d(channels_in, channels, kernel_size=3, padding=1)
        layers[f"bn{number}"] = nn.BatchNorm2d(channels)
        layers[f"relu{number}"] = nn.ReLU()
        if number > 1:
            layers[f"pool{number}"] = nn.MaxPool2d(2)
    layers["flatten"] = nn.Flatten()
    layers["head"] = nn.Linear(32 * 2 * 2, 10)
    return nn.Sequential(layers)


def sample_order(samples: int, steps: int, batch: int, seed: int = 0) -> NDArray[np.uint32]:
    """Which samples each step reads, ``[steps, batch]``: every epoch permuted anew, remainders dropped."""
    rng = np.random.default_rng(seed)
    per_epoch = samples // batch
    epochs = [
        rng.permutation(samples)[: per_epoch * batch].reshape(per_epoch, batch)
        for _ in range(-(-steps // per_epoch))
    ]
    return np.concatenate(epochs)[:steps].astype(np.uint32)


def train_in_torch(model: nn.Module, digits: Digits, order: NDArray[np.uint32]) -> list[float]:
    """The same training in plain PyTorch, in place; the loss of every step."""
    images, classes = torch.from_numpy(digits.images), torch.from_numpy(digits.classes).long()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    losses = []
    model.train()
    for batch in torch.from_numpy(order.astype(np.int64)):
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(images[batch]), classes[batch])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    return losses


def accuracy(model: nn.Module, digits: Digits) -> float:
    """Share of the held-out digits that ``model``, in evaluation mode, names rightly."""
    model.eval()
    with torch.no_grad():
        named = model(torch.from_numpy(digits.held_out_images)).argmax(dim=1)
    return float((named.numpy() == digits.held_out_classes).mean())
