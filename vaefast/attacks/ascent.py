"""Ascent rules: how a point moves from one iterate to the next. One object per block of rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from vaefast.attacks.ball import Ball

__all__ = ["SHRINKING", "Ascent", "AscentRule", "PlateauAscent", "ProjectedAscent"]


class Ascent(Protocol):
    def step(self, point: Tensor, grad: Tensor, objective: Tensor) -> None:
        """Move ``point`` [N, *event] in place, given the gradient and the objective [N] at it."""


class ProjectedAscent:
    """Projected gradient ascent: x' ← clip(project(x' + alpha_t·u)), u = sign(g) or g/‖g‖₂.

    alpha_t = alpha·(1 − (1 − final)·t/steps): constant by default.

    Args:
        ball: the set that is searched.
        alpha: [N], step length in the scale of x.
        steps: how many steps will be taken.
        final: what a step after the last one would have, as a fraction of ``alpha``.
    """

    def __init__(self, ball: Ball, alpha: Tensor, steps: int, *, final: float = 1.0) -> None:
        self.ball = ball
        self.alpha = alpha
        self.decrement = (1.0 - final) / steps
        self.taken = 0

    def step(self, point: Tensor, grad: Tensor, objective: Tensor) -> None:
        self.ball.ascend_(point, grad, self.alpha * (1.0 - self.decrement * self.taken))
        self.taken += 1


class PlateauAscent:
    """Plain gradient ascent with the step halved on plateaus, every row with its own schedule.

    ε ← ε + rate·g, then the ball, then the box. The rate follows torch's ``ReduceLROnPlateau`` on
    the loss −objective: multiplied by ``factor`` after more than ``patience`` steps without a loss
    below best·(1 − threshold). A row stops once its rate is below ``min_rate``.

    For ℓ2 the published projection is kept: where ‖ε‖₂ > eps, ε is rescaled to length eps·√D (the
    test uses the norm, the rescaling the norm relative to that of the all-ones image), so the
    perturbation may leave the ball.

    Source: Kuzina et al. 2022, released code (mathematics.md 1.2).
    """

    def __init__(
        self,
        ball: Ball,
        alpha: Tensor,
        steps: int,
        *,
        patience: int = 20,
        factor: float = 0.5,
        threshold: float = 1e-4,
        min_rate: float = 1e-6,
    ) -> None:
        self.ball = ball
        self.rate = alpha.clone()
        self.patience, self.factor = patience, factor
        self.threshold, self.min_rate = threshold, min_rate
        self.best_loss = torch.full_like(alpha, torch.inf, dtype=torch.float64)
        self.bad_steps = torch.zeros_like(alpha, dtype=torch.int64)

    def step(self, point: Tensor, grad: Tensor, objective: Tensor) -> None:
        running = self.ball.per_entry(self.rate >= self.min_rate)
        moved = self._project_(point + self.ball.per_entry(self.rate) * grad)
        torch.where(running, moved, point, out=point)
        self._reduce_rate(-objective)

    def _project_(self, point: Tensor) -> Tensor:
        if self.ball.norm == "linf":
            return self.ball.project_(point)
        delta = point - self.ball.x
        length = torch.linalg.vector_norm(delta.flatten(1), dim=1)
        relative = length / self.ball.x.shape[1:].numel() ** 0.5
        scale = torch.where(length > self.ball.eps, self.ball.eps / relative, 1.0)
        return self.ball.clip_(self.ball.x + self.ball.per_entry(scale) * delta)

    def _reduce_rate(self, loss: Tensor) -> None:
        better = loss < self.best_loss * (1.0 - self.threshold)
        self.best_loss = torch.where(better, loss, self.best_loss)
        self.bad_steps = torch.where(better, 0, self.bad_steps + 1)
        plateau = self.bad_steps > self.patience
        self.rate = torch.where(plateau, self.factor * self.rate, self.rate)
        self.bad_steps = torch.where(plateau, 0, self.bad_steps)


AscentRule = Callable[[Ball, Tensor, int], Ascent]
SHRINKING: AscentRule = partial(ProjectedAscent, final=0.01)
