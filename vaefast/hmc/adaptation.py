"""Step sizes that learn from transitions: dual averaging, one independent recursion per row."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["DualAveraging", "StepSize"]

TARGET_ACCEPT = 0.8
SHRINKAGE = 0.05  # γ
OFFSET = 10  # t₀
DECAY = 0.75  # κ


class StepSize(Protocol):
    """A step size per row that learns from each transition."""

    @property
    def step_size(self) -> Tensor:
        """[B] float64, of the next transition."""

    def update(self, accept_prob: Tensor, accepted: Tensor) -> None:
        """Learn from the means over the row's chains, each [B] float64."""

    def after_warmup(self) -> Tensor | StepSize:
        """What runs the transitions after the warm-up: a frozen step size [B] or a learner."""


class DualAveraging:
    """Step sizes whose acceptance probability approaches a target, row by row.

    With α_t the row's acceptance probability in transition t = 1, 2, …::

        H̄_t   = (1 − 1/(t + t₀)) H̄_{t−1} + (δ − α_t)/(t + t₀)
        log ε = log(10 ε₀) − √t/γ · H̄_t
        log ε̄ = t^−κ log ε + (1 − t^−κ) log ε̄

    ε runs the warm-up, ε̄ everything after it. γ = 0.05, t₀ = 10, κ = 0.75.

    Args:
        step_size: [B], ε₀ > 0; the recursion runs in float64.
        target: δ, in (0, 1).

    Source: Hoffman and Gelman, "The No-U-Turn Sampler", JMLR 15 (2014), section 3.2, algorithm 5.
    """

    def __init__(self, step_size: Tensor, target: float = TARGET_ACCEPT) -> None:
        self.target = target
        log_step = step_size.double().log()
        self._anchor = log_step + math.log(10.0)  # log 10 ε₀
        self._error = torch.zeros_like(log_step)  # H̄
        self._log_step = log_step
        self._log_average = log_step  # replaced whole by the first update, where t^−κ = 1
        self._updates = 0

    @property
    def step_size(self) -> Tensor:
        """ε for the next warm-up transition, [B] float64."""
        return self._log_step.exp()

    @property
    def average(self) -> Tensor:
        """ε̄, the step size to freeze, [B] float64; ε₀ before the first update."""
        return self._log_average.exp()

    def after_warmup(self) -> Tensor:
        """ε̄: frozen, so that what is kept leaves the posterior invariant."""
        return self.average

    def restarted(self) -> DualAveraging:
        """A recursion anew from ε̄, for another mass."""
        return DualAveraging(self.average, self.target)

    def update(self, accept_prob: Tensor, accepted: Tensor | None = None) -> None:
        """Learn from one transition's acceptance probability, [B] in [0, 1], not its decision."""
        self._updates += 1
        t = self._updates
        error = self.target - accept_prob.double()
        self._error = self._error + (error - self._error) / (t + OFFSET)
        self._log_step = self._anchor - math.sqrt(t) / SHRINKAGE * self._error
        weight = t**-DECAY
        self._log_average = weight * self._log_step + (1.0 - weight) * self._log_average
