"""The search that every iterative attack shares: all inputs and restarts in one batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from vaefast.attacks.ascent import Move
from vaefast.attacks.ball import Ball
from vaefast.attacks.gradients import Gradients, cleaned, value_and_gradient
from vaefast.attacks.random_start import START_BYTES, Stream
from vaefast.attacks.result import AttackResult
from vaefast.attacks.search import Bound, Objective, Search
from vaefast.attacks.strongest import Climb, Strongest
from vaefast.functional.rows import finite, repeated
from vaefast.models.prepare import Prepared
from vaefast.runtime import batching, capture, numerics
from vaefast.runtime.capture import Graphs
from vaefast.runtime.memory import row_chunks

__all__ = ["maximise"]


def maximise(objective: Objective, prepared: Prepared, x: Tensor, search: Search) -> AttackResult:
    """The strongest points of each input's ball that ``search`` finds.

    Inputs and restarts run side by side as rows [B·R], restart-minor, in as few batches as the
    memory budget allows.

    Args:
        objective: what is maximised.
        prepared: the inputs [B, *event] that are searched around, at least in float32.
        x: the same inputs, in the dtype of the result.
        search: how.
    """
    found, generic = Strongest(x, search), objective.generic
    promise = batching.reproducible(generic, (*objective.ops, "pgd_step"), prepared.x)
    valued = promise == "bits" and x.dtype == prepared.x.dtype  # points and bits are the search's
    with batching.pinned(generic), capture.capturing(prepared.x, *objective.modules) as captures:
        per_point = captures.copies * objective.bytes_per_row() + _search_bytes(x, search)
        cost, width = search.restarts * per_point, search.restarts * objective.width
        for batch in prepared.batches(cost, width, generic):
            part = prepared.at(batch.gather)
            searched, reported = objective.bind(part)
            per_restart = batch.size * per_point
            run = partial(_search, searched, part, search, captures)
            for lanes in row_chunks(search.restarts, per_restart):
                found.offer(batch.rows, lanes, run(lanes).at(batch.positions))
            for kept in row_chunks(found.kept, per_restart):
                found.report(batch, kept, None if valued and reported is searched else reported)
    return replace(found.result(), reproducible=promise)


def _search_bytes(x: Tensor, search: Search) -> int:
    pixels = x.shape[1:].numel()
    return pixels * (search.images * max(x.element_size(), 4) + START_BYTES) + 8 * (
        search.steps + 1
    )


def _search(
    objective: Bound, part: Prepared, search: Search, captures: Graphs, lanes: slice
) -> Climb:
    """Run some restarts of some inputs."""
    restarts, x, rows = lanes.stop - lanes.start, part.x, part.gather
    centre, index = repeated(x, restarts).contiguous(), repeated(part.index, restarts)
    eps, low, high, alpha = (
        repeated(t[rows], restarts) for t in (search.eps, search.low, search.high, search.alpha)
    )
    ball = Ball(centre, eps, search.norm, low, high)
    restart = torch.arange(lanes.start, lanes.stop, device=x.device).repeat(len(x))
    start = search.start(ball, Stream(search.seed, index, restart))
    if search.given is not None and lanes.start <= search.given.restart < lanes.stop:
        place = search.given.restart - lanes.start
        start = start.unflatten(0, (len(x), restarts)).clone()
        start[:, place] = _strongest_of(objective, search.given.points[rows])
        start = start.flatten(0, 1)
    good = finite(x)
    climbing = _Climbing(objective, start, ball, alpha, search, captures)
    climb = climbing.run(repeated(good, restarts))
    shape = (len(x), restarts)
    return Climb(
        climb.point.reshape(*shape, *x.shape[1:]),
        climb.value.reshape(shape).masked_fill(~good[:, None], -torch.inf),
        climb.history.reshape(-1, *shape),
        Gradients(*[t.reshape(shape) for t in climb.gradients]),
    )


def _strongest_of(objective: Bound, points: Tensor) -> Tensor:
    """Of each input's points [b, k, *event] the one with the largest objective, [b, *event]."""
    values = objective(points.flatten(0, 1)).reshape(points.shape[:2])
    which = values.nan_to_num(-torch.inf).argmax(1)
    return points[torch.arange(len(points), device=points.device), which]


@dataclass(frozen=True, eq=False)
class _Climbing:
    """Searches from N starting points; climbs without the restart axis.

    Args:
        objective: what is ascended.
        start: [N, *event].
        ball: where.
        alpha: [N], step lengths.
        search: how.
        captures: of the steps.
    """

    objective: Bound
    start: Tensor
    ball: Ball
    alpha: Tensor
    search: Search
    captures: Graphs

    def run(self, finite: Tensor) -> Climb:
        """The climb of each row; with care where the gradient of a ``finite`` one was unusable."""
        climb, last = self._climb(careful=False)
        suspect = self._suspect(climb, last) & finite
        if not suspect.any():
            return climb
        careful, _ = self._climb(careful=True)
        return careful.where(suspect, climb)

    def _suspect(self, climb: Climb, last: Tensor) -> Tensor:
        """[N] bool: what is not finite shows a gradient that is not, rest shows one that is 0."""
        history = climb.history
        broken = ~history.isfinite().all(0)
        if not last.sum().isfinite():
            broken |= ~finite(last)
        at_rest = history[1] == history[-1]
        if at_rest.any():
            ascent = self.search.ascent(self.alpha, self.search.steps)
            none = torch.zeros_like(self.start)
            rest, *_ = ascent.move(self.ball, self.start, none, history[0], *ascent.state())
            at_rest &= (rest == last).flatten(1).all(1)
        return broken | at_rest

    def _climb(self, *, careful: bool) -> tuple[Climb, Tensor]:
        """The best points, and the last."""
        search, ball, objective, point = self.search, self.ball, self.objective, self.start
        ascent = search.ascent(self.alpha, search.steps)
        best = point.clone()
        best_value = point.new_full((len(point),), -torch.inf, dtype=torch.float64)
        history = best_value.new_empty(search.steps + 1, len(point))
        gradients = Gradients.unremarkable(point)
        take_step = _Step(
            objective.function,
            len(objective.constants),
            ascent.move,
            ball.norm,
            careful,
            careful and ascent.scale_free,
        )
        fixed = (ball.x, ball.eps, ball.low, ball.high, *objective.constants)
        seen: list[tuple[Tensor, Tensor]] = []
        for step in range(search.steps):
            value, moved, *state = self.captures.run(take_step, point, *fixed, *ascent.state())
            if careful:
                nonfinite, usable, *state = state
                seen.append((nonfinite, usable))
            history[step] = value
            if search.select == "best":
                _keep_better(best, best_value, point, value)
            point = moved
            ascent.keep(*state)
        history[-1] = objective(point)
        _keep_better(best, best_value, point, history[-1])
        if careful:
            nonfinite, usable = (torch.stack(flags) for flags in zip(*seen))
            gradients = Gradients(nonfinite.sum(0), usable.any(0))
        return Climb(best, best_value, history, gradients), point


@dataclass(frozen=True)
class _Step:
    """Objective, gradient and move as one function of tensors, equal for all blocks of a search."""

    objective: Callable[..., Tensor]
    constants: int  # of the objective
    move: Move
    norm: str
    careful: bool  # entries of the gradient that are not finite count as 0
    scaled: bool  # the gradient is of the objective brought near 1

    def __call__(
        self, point: Tensor, x: Tensor, eps: Tensor, low: Tensor, high: Tensor, *others: Tensor
    ) -> tuple[Tensor, ...]:
        """The objective at ``point`` [N] float64, the next point, of a careful step which rows'
        gradients were not finite and which usable, and the ascent's next state.
        """
        ball = Ball(x, eps, self.norm, low, high)
        constants, state = others[: self.constants], others[self.constants :]
        with numerics.one_kernel(point.device):
            bound = Bound(self.objective, constants)
            value, grad = value_and_gradient(bound, point, scaled=self.scaled)
        flags: tuple[Tensor, ...] = ()
        if self.careful:
            grad, *flags = cleaned(grad)  # type: ignore[assignment]
        moved, *state = self.move(ball, point, grad, value, *state)  # type: ignore[assignment]
        return value, moved, *flags, *state


def _keep_better(best: Tensor, best_value: Tensor, point: Tensor, value: Tensor) -> None:
    better = (value > best_value) & (value < torch.inf)
    torch.where(better, value, best_value, out=best_value)
    torch.where(better.reshape(-1, *[1] * (point.ndim - 1)), point, best, out=best)
