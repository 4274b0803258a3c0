"""Optimizers as part of a program: plain descriptions with the update rule of each.

Rules, names and defaults are those of ``torch.optim``, or of the paper where PyTorch has none. ``rule`` says what
an optimizer is, ``schedules`` are learning rates that change, the other modules hold the rules. Nothing here needs
PyTorch.
"""

from crowdtrain.optim.adam import Adam, Adamax, AdamW, NAdam, RAdam
from crowdtrain.optim.adaptive import Adadelta, Adafactor, Adagrad, RMSprop
from crowdtrain.optim.averaging import EMA
from crowdtrain.optim.descent import SGD, Lion
from crowdtrain.optim.muon import Muon
from crowdtrain.optim.rule import Optimizer, Slot
from crowdtrain.optim.schedules import (
    ConstantLR,
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    Schedule,
    SequentialLR,
    StepLR,
    warmup_cosine,
)

__all__ = [
    "EMA",
    "SGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "ConstantLR",
    "CosineAnnealingLR",
    "ExponentialLR",
    "LinearLR",
    "Lion",
    "MultiStepLR",
    "Muon",
    "NAdam",
    "OneCycleLR",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "Schedule",
    "SequentialLR",
    "Slot",
    "StepLR",
    "warmup_cosine",
]
