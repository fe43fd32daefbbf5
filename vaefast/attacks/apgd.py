"""Auto-PGD: projected ascent with momentum whose steps halve where they stop paying."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vaefast.attacks.ascent import Move
from vaefast.attacks.ball import Ball
from vaefast.functional.pgd import shortened

__all__ = ["AutoAscent", "AutoMove", "checkpoints"]

RHO = 0.75  # of the steps since a checkpoint that must have risen
MOMENTUM = 0.75  # share of the projected step; the rest is the step before


class AutoAscent:
    """Projected ascent with momentum, best points and step lengths that halve (APGD).

    With P the projection to the ball and then the box and u the steepest direction::

        z = P(x' + η·u),   x'' = P(x' + ¾(z − x') + ¼(x' − x'_before)),   the first step x'' = z

    At checkpoints a row goes back to its best point and halves η if fewer than a ``rho`` share of
    its steps rose, or if neither η nor its best objective changed since the last one. Every row
    decides by itself.

    Args:
        alpha: [N], the first η over ``initial``.
        steps: how many steps will be taken.
        initial: η is ``initial``·alpha at first.
        rho: the share above.

    Source: Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of
    diverse parameter-free attacks", 2020, Algorithm 1, with the checkpoints of the released code.
    """

    scale_free = True

    def __init__(
        self, alpha: Tensor, steps: int, *, initial: float = 1.0, rho: float = RHO
    ) -> None:
        self.move: Move = AutoMove()
        self.size, self.rho = initial * alpha, rho
        self.checks = checkpoints(steps)
        self.taken = self.last = 0
        self.kept: tuple[Tensor, ...] = ()

    def state(self) -> tuple[Tensor, ...]:
        if not self.kept:
            return (self.size,)
        due = self.taken in self.checks
        window = self.rho * (self.taken - self.last)
        flag = torch.full((), due, dtype=torch.bool, device=self.size.device)
        limit = torch.full((), window, dtype=torch.float64, device=self.size.device)
        return *self.kept, flag, limit

    def keep(self, *state: Tensor) -> None:
        if self.taken in self.checks:
            self.last = self.taken
        self.kept = state
        self.taken += 1


def checkpoints(steps: int) -> set[int]:
    """After how many steps the lengths are looked at: windows of 22, 19, 16, ... 6 % of them."""
    window, least, less = (max(int(share * steps), 1) for share in (0.22, 0.06, 0.03))
    found, at = set(), window
    while at <= steps:
        found.add(at)
        window = max(window - less, least)
        at += window
    return found


@dataclass(frozen=True)
class AutoMove:
    """The move as a function of tensors.

    Args:
        added: is added to the gradient's norm in ℓ2.
        digits: objectives rise where they do in this dtype.
    """

    added: float = 0.0
    digits: torch.dtype = torch.float64

    def __call__(
        self, ball: Ball, point: Tensor, grad: Tensor, objective: Tensor, *state: Tensor
    ) -> tuple[Tensor, ...]:
        size = state[0]
        if len(state) == 1:
            rises = torch.zeros_like(objective, dtype=torch.int64)
            reduced = torch.ones_like(objective, dtype=torch.bool)
            moved = self._stepped(ball, point, grad, size)
            images = point.clone(), point.clone(), grad.clone()  # a captured step's are its own
            return moved, size.clone(), *images, *[objective] * 3, rises, reduced
        before, best_point, best_grad, best, last_best, previous, rises, reduced = state[1:9]
        due, limit = state[9:]
        better = objective > best
        best = torch.where(better, objective, best)
        rises = rises + (objective.to(self.digits) > previous.to(self.digits))
        stale = ~reduced & (last_best >= best)
        halve = (rises <= limit) | stale
        best_point = torch.where(ball.per_entry(better), point, best_point)
        best_grad = torch.where(ball.per_entry(better), grad, best_grad)
        size = torch.where(due & halve, 0.5 * size, size)
        back = ball.per_entry(due & halve)
        point, grad = torch.where(back, best_point, point), torch.where(back, best_grad, grad)
        moved = self._stepped(ball, point, grad, size)
        moved = ball.project_(
            point + MOMENTUM * (moved - point) + (1.0 - MOMENTUM) * (point - before)
        )
        return (
            moved,
            size,
            point,
            best_point,
            best_grad,
            best,
            torch.where(due, best, last_best),
            objective,
            rises.masked_fill(due, 0),
            torch.where(due, halve, reduced),
        )

    def _stepped(self, ball: Ball, point: Tensor, grad: Tensor, size: Tensor) -> Tensor:
        if self.added and ball.norm == "l2":
            size = shortened(size, grad, self.added)
        return ball.ascended(point, grad, size)
