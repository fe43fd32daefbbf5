"""The search that every iterative attack shares: all inputs and restarts in one batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from vaefast.attacks.ascent import Ascent, Move
from vaefast.attacks.ball import Ball
from vaefast.attacks.random_start import START_BYTES, Stream
from vaefast.attacks.result import AttackResult
from vaefast.attacks.search import Bound, Objective, Search
from vaefast.attacks.strongest import Climb, Strongest
from vaefast.models.prepare import Prepared
from vaefast.runtime import batching, capture, numerics
from vaefast.runtime.capture import Graphs
from vaefast.runtime.memory import row_chunks

__all__ = ["maximise"]

IMAGES = 8  # tensors of x's size alive in a step: centre, point, best, gradient and temporaries
NO_GRADIENT = (
    "the model's output does not depend on x through autograd; "
    "remove torch.no_grad() or .detach() from its encoder"
)


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
                found.report(batch, kept, reported)
    promise = batching.reproducible(generic, (*objective.ops, "pgd_step"), prepared.x)
    return replace(found.result(), reproducible=promise)


def _search_bytes(x: Tensor, search: Search) -> int:
    pixels = x.shape[1:].numel()
    return pixels * (IMAGES * max(x.element_size(), 4) + START_BYTES) + 8 * (search.steps + 1)


def _search(
    objective: Bound, part: Prepared, search: Search, captures: Graphs, lanes: slice
) -> Climb:
    """Run some restarts of some inputs."""
    restarts, x, rows = lanes.stop - lanes.start, part.x, part.gather

    def repeated(per_input: Tensor) -> Tensor:
        return per_input.repeat_interleave(restarts, 0) if restarts > 1 else per_input

    centre, index = repeated(x).contiguous(), repeated(part.index)
    eps, low, high, alpha = (
        repeated(t[rows]) for t in (search.eps, search.low, search.high, search.alpha)
    )
    ball = Ball(centre, eps, search.norm, low, high)
    restart = torch.arange(lanes.start, lanes.stop, device=x.device).repeat(len(x))
    start = search.start(ball, Stream(search.seed, index, restart))
    ascent = search.ascent(alpha, search.steps)
    climb = _climb(objective, start, ball, ascent, search, captures)
    non_finite = ~x.flatten(1).isfinite().all(1)
    shape = (len(x), restarts)
    return Climb(
        climb.point.reshape(*shape, *x.shape[1:]),
        climb.value.reshape(shape).masked_fill(non_finite[:, None], -torch.inf),
        climb.history.reshape(-1, *shape),
    )


def _climb(
    objective: Bound, point: Tensor, ball: Ball, ascent: Ascent, search: Search, captures: Graphs
) -> Climb:
    """Ascend from ``point`` [N, *event]; fields without the restart axis."""
    best = point.clone()
    best_value = point.new_full((len(point),), -torch.inf, dtype=torch.float64)
    history = best_value.new_empty(search.steps + 1, len(point))
    step_up = _Step(objective.function, len(objective.constants), ascent.move, ball.norm)
    fixed = (ball.x, ball.eps, ball.low, ball.high, *objective.constants)
    for step in range(search.steps):
        value, moved, *state = captures.run(step_up, point, *fixed, *ascent.state())
        history[step] = value
        if search.select == "best":
            _keep_better(best, best_value, point, value)
        point = moved
        ascent.keep(*state)
    history[-1] = objective(point)
    _keep_better(best, best_value, point, history[-1])
    return Climb(best, best_value, history)


@dataclass(frozen=True)
class _Step:
    """Objective, gradient and move as one function of tensors, equal for all blocks of a search."""

    objective: Callable[..., Tensor]
    constants: int  # of the objective
    move: Move
    norm: str

    def __call__(
        self, point: Tensor, x: Tensor, eps: Tensor, low: Tensor, high: Tensor, *others: Tensor
    ) -> tuple[Tensor, ...]:
        """The objective at ``point`` [N] float64, the next point, and the ascent's next state."""
        ball = Ball(x, eps, self.norm, low, high)
        constants, state = others[: self.constants], others[self.constants :]
        with numerics.one_kernel(point.device):
            value, grad = _value_and_gradient(Bound(self.objective, constants), point)
        return value, *self.move(ball, point, grad, value, *state)


def _value_and_gradient(objective: Bound, point: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        variable = point.detach().requires_grad_()
        value = objective(variable)
        grad = None
        if value.requires_grad:
            (grad,) = torch.autograd.grad(value.sum(), variable, allow_unused=True)
    if grad is None:
        raise ValueError(NO_GRADIENT)
    return value.detach(), grad


def _keep_better(best: Tensor, best_value: Tensor, point: Tensor, value: Tensor) -> None:
    better = (value > best_value) & value.isfinite()
    torch.where(better, value, best_value, out=best_value)
    torch.where(better.reshape(-1, *[1] * (point.ndim - 1)), point, best, out=best)
