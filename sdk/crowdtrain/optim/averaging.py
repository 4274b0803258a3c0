"""Averages of the weights over training, kept beside them."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["EMA"]


@dataclass(frozen=True)
class EMA:
    """Exponential moving average of the trained parameters, in the state's group ``average``.

    As ``torch.optim.swa_utils.AveragedModel`` with ``get_ema_multi_avg_fn(decay)``: after the first update the
    average is the parameter (to a rounding), after each further one decay · average + (1 - decay) · parameter.
    Raises ValueError unless ``decay`` lies from 0 to 1.
    """

    decay: float = 0.999

    def __post_init__(self) -> None:
        if not 0 <= self.decay <= 1:
            raise ValueError(f"decay must be from 0 to 1, it is {self.decay}")
