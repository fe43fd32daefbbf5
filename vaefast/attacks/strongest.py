"""The running result of an attack: the strongest point of each input over its restarts."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vaefast.attacks.ball import narrowed, perturbation_norm, working
from vaefast.attacks.gradients import Gradients
from vaefast.attacks.result import NO_OBJECTIVE, NO_X, STILL, AttackResult
from vaefast.attacks.search import Search, Value
from vaefast.functional.rows import finite
from vaefast.runtime.batching import PaddedBatch, Rows
from vaefast.runtime.reasons import Reasons, reasons

__all__ = ["Climb", "Strongest"]


class Climb(NamedTuple):
    """What k restarts of b inputs reached; those of a non-finite input have the value -inf."""

    point: Tensor  # [b, k, *event]
    value: Tensor  # [b, k] float64
    history: Tensor  # [steps+1, b, k] float64
    gradients: Gradients  # [b, k]

    def at(self, positions: Rows) -> Climb:
        """Some of the inputs."""
        return Climb(
            self.point[positions],
            self.value[positions],
            self.history[:, positions],
            Gradients(*[t[positions] for t in self.gradients]),
        )

    def take(self, which: Tensor) -> Climb:
        """The chosen restart of each input, k = 1."""
        if self.value.shape[1] == 1:
            return self
        row = torch.arange(len(which), device=which.device)
        return Climb(
            self.point[row, which][:, None],
            self.value[row, which][:, None],
            self.history[:, row, which][..., None],
            Gradients(*[t[row, which][:, None] for t in self.gradients]),
        )

    def where(self, mask: Tensor, other: Climb) -> Climb:
        """The climbs of the rows in ``mask`` [N], and of the others those of ``other``."""
        pixels = mask.reshape(-1, *[1] * (self.point.ndim - 1))
        pairs = zip(self.gradients, other.gradients)
        return Climb(
            torch.where(pixels, self.point, other.point),
            torch.where(mask, self.value, other.value),
            torch.where(mask, self.history, other.history),
            Gradients(*[torch.where(mask, mine, theirs) for mine, theirs in pairs]),
        )


class Strongest:
    """The best restart of each input so far, or all of them: buffers [B, kept, ...]."""

    def __init__(self, x: Tensor, search: Search) -> None:
        self.x, self.norm, self.keep = x, search.norm, search.keep
        self.wide = (search.eps > 0) & (search.high > search.low)  # [B]: there is where to go
        self.kept = search.restarts if search.keep == "all" else 1
        shape = (len(x), self.kept)
        self.x_adv = x.new_full((*shape, *x.shape[1:]), torch.nan)
        self.history = x.new_full((search.steps + 1, *shape), torch.nan, dtype=torch.float64)
        self.objective = x.new_full(shape, torch.nan, dtype=torch.float64)
        self.distance = torch.full_like(self.objective, torch.nan)
        self.best = x.new_full((len(x),), -torch.inf, dtype=torch.float64)
        self.restart = torch.full_like(self.best, -1, dtype=torch.int64)
        self.nonfinite = torch.zeros_like(self.restart)
        self.usable = torch.zeros_like(self.restart, dtype=torch.bool)

    def offer(self, rows: Rows, lanes: slice, climb: Climb) -> None:
        """Take over what these restarts of these inputs reached, where it is better."""
        self.nonfinite[rows] += climb.gradients.nonfinite.sum(1)
        self.usable[rows] |= climb.gradients.usable.any(1)
        value, which = climb.value.max(1)
        better = value > self.best[rows]
        self.best[rows] = torch.where(better, value, self.best[rows])
        self.restart[rows] = torch.where(better, which + lanes.start, self.restart[rows])
        if self.keep == "all":
            self._store(rows, lanes, climb, climb.value > -torch.inf)
        else:
            self._store(rows, slice(0, 1), climb.take(which), better[:, None])

    def _store(self, rows: Rows, kept: slice, climb: Climb, where: Tensor) -> None:
        pixels = where.reshape(*where.shape, *[1] * (self.x.ndim - 1))
        point, x = self.x_adv[rows, kept], self.x[rows][:, None]
        self.x_adv[rows, kept] = torch.where(pixels, narrowed(climb.point, x), point)
        history = self.history[:, rows, kept]
        self.history[:, rows, kept] = torch.where(where, climb.history, history)
        value = self.objective[rows, kept]
        self.objective[rows, kept] = torch.where(where, climb.value, value)

    def report(self, batch: PaddedBatch, kept: slice, objective: Value | None) -> None:
        """Evaluate the objective and the norm of the very points that will be returned.

        ``objective``: None where its values in the search are those.
        """
        rows, point = batch.rows, self.x_adv[batch.gather, kept]
        if objective is not None:
            failed = point.isnan().flatten(2).any(2)
            value = objective(working(point.flatten(0, 1))).reshape(point.shape[:2])
            self.objective[rows, kept] = value.masked_fill(failed, torch.nan)[batch.positions]
        point = point[batch.positions]
        shape = point.shape[:2]
        x = self.x[rows][:, None].expand_as(point)
        self.distance[rows, kept] = perturbation_norm(
            point.flatten(0, 1), x.flatten(0, 1), self.norm
        ).reshape(shape)

    def result(self) -> AttackResult:
        single = self.keep == "best"
        x_adv, objective, distance = (
            t.squeeze(1) if single else t for t in (self.x_adv, self.objective, self.distance)
        )
        reached, still = self.restart >= 0, self.wide & ~self.usable
        failed = ~reached | still
        return AttackResult(
            x_adv=x_adv,
            objective=objective,
            perturbation_norm=distance,
            best_restart=self.restart,
            failed=failed,
            history=self.history.squeeze(2) if single else self.history,
            reasons=self._reasons(failed, reached),
            nonfinite_gradients=self.nonfinite,
        )

    def _reasons(self, failed: Tensor, reached: Tensor) -> Reasons:
        if not failed.any():
            return reasons(len(failed), {})
        bad_x = ~finite(self.x)
        return reasons(len(failed), {NO_X: bad_x, NO_OBJECTIVE: ~reached, STILL: failed})
