"""Ascent rules: how a point moves from one iterate to the next. One object per block of rows.

A move is a function of tensors alone, so that a whole step can be captured
(:mod:`vaefast.runtime.capture`); what it depends on from step to step is the ascent's state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from vaefast.attacks.ball import Ball
from vaefast.functional.pgd import shortened
from vaefast.ops.pgd_step import pgd_step

__all__ = [
    "SHRINKING",
    "AdamAscent",
    "Ascent",
    "AscentRule",
    "Move",
    "PlateauAscent",
    "ProjectedAscent",
    "StepForm",
]

# (ball, point, grad, objective, *state) to (point, *state), new tensors; equal for equal rules
Move = Callable[..., tuple[Tensor, ...]]


class Ascent(Protocol):
    move: Move
    scale_free: bool  # a gradient times a number gives the same move

    def state(self) -> tuple[Tensor, ...]:
        """What the next move takes, [N] each."""

    def keep(self, *state: Tensor) -> None:
        """Take what the move returned beside the point."""


@dataclass(frozen=True)
class StepForm:
    """A projected step as a library has it; a move.

    Args:
        order: of projection and clip, as :func:`vaefast.ops.pgd_step` takes it.
        floor: smallest gradient norm that is divided by, None: the smallest normal number.
        added: is added to that norm.
    """

    order: str = "project_clip"
    floor: float | None = None
    added: float = 0.0

    @property
    def scale_free(self) -> bool:
        return self.floor is None and not self.added

    def __call__(
        self, ball: Ball, point: Tensor, grad: Tensor, objective: Tensor, alpha: Tensor
    ) -> tuple[Tensor, ...]:
        if self.added:
            alpha = shortened(alpha, grad, self.added)
        moved = pgd_step(
            point,
            grad,
            ball.x,
            alpha=alpha,
            eps=ball.eps,
            norm=ball.norm,
            low=ball.low,
            high=ball.high,
            order=self.order,
            norm_eps=self.floor,
        )
        return (moved,)


class ProjectedAscent:
    """Projected gradient ascent: x' ← clip(project(x' + alpha_t·u)), u = sign(g) or g/‖g‖₂.

    alpha_t = alpha·(1 − (1 − final)·t/steps): constant by default.

    Args:
        alpha: [N], step length in the scale of x.
        steps: how many steps will be taken.
        final: what a step after the last one would have, as a fraction of ``alpha``.
        form: of a library's step, where it is none of ours.
    """

    def __init__(
        self,
        alpha: Tensor,
        steps: int,
        *,
        final: float = 1.0,
        form: StepForm | None = None,
    ) -> None:
        self.move: Move = _projected if form is None else form
        self.scale_free = form is None or form.scale_free
        self.alpha = alpha
        self.decrement = (1.0 - final) / steps
        self.taken = 0

    def state(self) -> tuple[Tensor, ...]:
        return (self.alpha * (1.0 - self.decrement * self.taken),)

    def keep(self, *state: Tensor) -> None:
        self.taken += 1


def _projected(
    ball: Ball, point: Tensor, grad: Tensor, objective: Tensor, alpha: Tensor
) -> tuple[Tensor, ...]:
    return (ball.ascended(point, grad, alpha),)


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

    scale_free = False

    def __init__(
        self,
        alpha: Tensor,
        steps: int,
        *,
        patience: int = 20,
        factor: float = 0.5,
        threshold: float = 1e-4,
        min_rate: float = 1e-6,
    ) -> None:
        self.move: Move = _PlateauMove(patience, factor, threshold, min_rate)
        self.rate = alpha.clone()
        self.best_loss = torch.full_like(alpha, torch.inf, dtype=torch.float64)
        self.bad_steps = torch.zeros_like(alpha, dtype=torch.int64)

    def state(self) -> tuple[Tensor, ...]:
        return self.rate, self.best_loss, self.bad_steps

    def keep(self, *state: Tensor) -> None:
        self.rate, self.best_loss, self.bad_steps = state


@dataclass(frozen=True)
class _PlateauMove:
    patience: int
    factor: float
    threshold: float
    min_rate: float

    def __call__(
        self, ball: Ball, point: Tensor, grad: Tensor, objective: Tensor, *state: Tensor
    ) -> tuple[Tensor, ...]:
        rate = state[0]
        moved = _to_published_ball(ball, point + ball.per_entry(rate) * grad)
        moved = torch.where(ball.per_entry(rate >= self.min_rate), moved, point)
        return moved, *self._reduced(-objective, *state)

    def _reduced(
        self, loss: Tensor, rate: Tensor, best_loss: Tensor, bad_steps: Tensor
    ) -> tuple[Tensor, ...]:
        better = loss < best_loss * (1.0 - self.threshold)
        bad_steps = (bad_steps + 1).masked_fill(better, 0)
        plateau = bad_steps > self.patience
        return (
            torch.where(plateau, self.factor * rate, rate),
            torch.where(better, loss, best_loss),
            bad_steps.masked_fill(plateau, 0),
        )


def _to_published_ball(ball: Ball, point: Tensor) -> Tensor:
    if ball.norm != "l2":
        return ball.project_(point)
    delta = point - ball.x
    length = torch.linalg.vector_norm(delta.flatten(1), dim=1)
    relative = length / ball.x.shape[1:].numel() ** 0.5
    scale = (ball.eps / relative).masked_fill(~(length > ball.eps), 1.0)
    return ball.clip_(ball.x + ball.per_entry(scale) * delta)


class AdamAscent:
    """Adam's steps, then the ball, then the box.

    Args:
        alpha: [N], step length in the scale of x.
        steps: how many steps will be taken.

    Source: Kingma and Ba 2015, Algorithm 1, with torch's constants.
    """

    scale_free = False

    def __init__(self, alpha: Tensor, steps: int) -> None:
        self.move: Move = _adam
        self.alpha, self.moments = alpha, ()
        self.taken = 0

    def state(self) -> tuple[Tensor, ...]:
        steps = torch.full((), self.taken + 1, dtype=torch.float64, device=self.alpha.device)
        return self.alpha, steps, *self.moments

    def keep(self, *state: Tensor) -> None:
        self.moments, self.taken = state, self.taken + 1  # type: ignore[assignment]


def _adam(
    ball: Ball,
    point: Tensor,
    grad: Tensor,
    objective: Tensor,
    alpha: Tensor,
    steps: Tensor,
    *moments: Tensor,
) -> tuple[Tensor, ...]:
    first, second = moments or (torch.zeros_like(grad), torch.zeros_like(grad))
    first = FIRST * first + (1.0 - FIRST) * grad
    second = SECOND * second + (1.0 - SECOND) * grad.square()
    mean = first / (1.0 - FIRST**steps).to(grad.dtype)
    spread = (second / (1.0 - SECOND**steps).to(grad.dtype)).sqrt() + ADDED
    moved = ball.project_(point + ball.per_entry(alpha) * mean / spread)
    return moved, first, second


FIRST, SECOND, ADDED = 0.9, 0.999, 1e-8  # of Adam
AscentRule = Callable[[Tensor, int], Ascent]  # alpha [N] and the number of steps
SHRINKING: AscentRule = partial(ProjectedAscent, final=0.01)
