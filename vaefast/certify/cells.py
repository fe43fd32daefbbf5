"""Cells of an ellipsoid of posteriors, each shown to keep its probability above ½, or divided.

A posterior that an input ball can reach is y = U(t, y_r) with Σ t_i²/a_i² + ‖y_r‖²/a² ≤ 1. A cell
is a box of t along the first j axes. It holds if, for all of them at once,

    Φ⁻¹(1 − b(t)) > a_{j+1} ρ(t),     ρ(t)² = 1 − Σ_{i≤j} t_i²/a_i²

where log b is bounded by the largest log of the box's corners plus ½ Σ_i w_i (ℓ_i/2)² (log-convex
interpolation). The first cell has no axis: that is Neyman and Pearson's condition. A cell that
fails gets the next axis or is halved along its longest side. All corners lie on one dyadic grid,
whose size is the number of anchors that could be asked for.

Where the input moves log σ by up to E, ‖e‖ ≤ E, each room Φ⁻¹(1 − b) is what is left of it after
that change: the mean moves first, within one scale, then the rest of both
(:mod:`vaefast.certify.scale_costs`).

Source: mathematics.md 8.6 (I), (R), adaptive form; another E, of the scale alone, in place of an
ellipsoid of both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from vaefast.certify.scale_costs import cost_at

__all__ = ["Ellipsoid", "anchors", "covered"]

DEPTH = 4  # halvings of an axis
ROUNDS = 64
CELLS = 5_000  # undecided at once; more are given up


class Ellipsoid(NamedTuple):
    """Axes of the whitened means {y : yᵀQ⁻¹y ≤ 1}, the longest first, and how far log σ moves.

    Args:
        unit: U [d, k].
        lengths: a [k + 1], with that of the next axis, 0 where there is none.
        scale: E ≥ ‖log σ' − log σ‖₂.
    """

    unit: Tensor
    lengths: Tensor
    scale: float

    @classmethod
    def of(cls, Q: Tensor, axes: int, scale: float = 0.0) -> Ellipsoid:
        """The longest axes of Q [d, d] float64."""
        values, vectors = torch.linalg.eigh(Q)
        values, vectors = values.flip(0).clamp(min=0.0), vectors.flip(1)
        k = min(axes, len(values))
        lengths = torch.zeros(k + 1, dtype=torch.float64, device="cpu")
        lengths[: min(k + 1, len(values))] = values[: k + 1].sqrt()
        return cls(vectors[:, :k], lengths * (1 + 1e-9), scale)

    @property
    def axes(self) -> int:
        return len(self.lengths) - 1


def anchors(ellipsoid: Ellipsoid) -> int:
    """How many anchors there could be, whatever the draws say."""
    return ((1 << DEPTH) + 1) ** ellipsoid.axes


def covered(ellipsoid: Ellipsoid, miss_bounds: Callable[[Tensor], Tensor]) -> bool:
    """Whether every posterior of the ellipsoid is shown to keep its probability above ½.

    Args:
        miss_bounds: means [n, d] ↦ upper bounds [n] of the misses' probability around them at the
            scale of x, valid for all the points that :func:`anchors` counts at once.
    """
    table = _Table(ellipsoid, miss_bounds)
    cells = _Cells.whole(ellipsoid.axes)
    for _ in range(ROUNDS):
        held, lost = _judged(ellipsoid, table, cells)
        cells = cells.take(~held)
        if not len(cells.used):
            return True
        if bool(lost.any()):
            return False
        divided = _divided(ellipsoid, cells)
        if divided is None or len(divided.used) > CELLS:
            return False
        cells = divided.take(_rest(divided) >= 0)
    return False


class _Cells(NamedTuple):
    """Boxes of the dyadic grid; along an axis that is not used they are the point t = 0.

    Args:
        low, high: [n, k] int64, grid indices.
        used: j [n] int64, how many axes a cell has.
    """

    low: Tensor
    high: Tensor
    used: Tensor

    @classmethod
    def whole(cls, axes: int) -> _Cells:
        middle = torch.full((1, axes), 1 << (DEPTH - 1), dtype=torch.int64, device="cpu")
        return cls(middle, middle, torch.zeros(1, dtype=torch.int64, device="cpu"))

    def take(self, which: Tensor) -> _Cells:
        return _Cells(*(t[which] for t in self))


def _unit(index: Tensor) -> Tensor:
    """t/a in [−1, 1] of a grid index."""
    return index.double() * (2.0 / (1 << DEPTH)) - 1.0


def _rest(cells: _Cells) -> Tensor:
    """The largest ρ² of each cell; negative where it lies outside the ellipsoid."""
    low, high = _unit(cells.low), _unit(cells.high)
    nearest = torch.maximum(low, -high).clamp(min=0.0)
    return 1.0 - nearest.square().sum(1)


def _remaining(ellipsoid: Ellipsoid, cells: _Cells) -> Tensor:
    """a_{j+1} ρ [n]: how far the directions that are no axes of the cell may move."""
    return ellipsoid.lengths[cells.used] * _rest(cells).clamp(min=0.0).sqrt()


def _divided(ellipsoid: Ellipsoid, cells: _Cells) -> _Cells | None:
    """Each cell with a further axis, or halved; None where one can be neither."""
    width = cells.high - cells.low
    sides = 0.5 * (_unit(cells.high) - _unit(cells.low)) * ellipsoid.lengths[:-1]
    sides = sides.masked_fill(width < 2, -1.0)
    longest, which = sides.max(1) if ellipsoid.axes else (cells.used - 1.0, cells.used)
    more = cells.used < ellipsoid.axes
    extend = more & ((_remaining(ellipsoid, cells) >= longest) | (longest < 0))
    halve = ~extend & (longest >= 0)
    if not bool((extend | halve).all()):
        return None
    wider, narrower = cells.take(extend), cells.take(halve)
    at = wider.used[:, None]
    wider = _Cells(
        wider.low.scatter(1, at, 0), wider.high.scatter(1, at, 1 << DEPTH), wider.used + 1
    )
    at = which[halve][:, None]
    middle = (narrower.low.gather(1, at) + narrower.high.gather(1, at)) // 2
    left = narrower._replace(high=narrower.high.scatter(1, at, middle))
    right = narrower._replace(low=narrower.low.scatter(1, at, middle))
    return _Cells(*map(torch.cat, zip(wider, left, right, strict=True)))


def _judged(ellipsoid: Ellipsoid, table: _Table, cells: _Cells) -> tuple[Tensor, Tensor]:
    """Whether the condition is shown for each cell, and whether no division will; [n] bool.

    A corner of the ellipsoid that fails with all axes used stays one.
    """
    corners = _corners(cells)  # [n, 2^k, k]
    half = 0.5 * (_unit(cells.high) - _unit(cells.low)) * ellipsoid.lengths[:-1]
    log_b = table.log_bounds(corners)
    lost = _lost(ellipsoid, corners, _room(log_b, ellipsoid.scale))
    room = _room(log_b.amax(1) + 0.5 * half.square().sum(1), ellipsoid.scale)
    return room > _remaining(ellipsoid, cells), lost


def _room(log_b: Tensor, scale: float) -> Tensor:
    """Φ⁻¹(1 − b), and of it what a change of log σ leaves."""
    room = -torch.special.ndtri(log_b.exp().clamp(max=1.0))
    return room - cost_at(room, torch.full_like(room, scale)) if scale > 0.0 else room


def _lost(ellipsoid: Ellipsoid, corners: Tensor, room: Tensor) -> Tensor:
    """Whether a corner [n, 2^k, k] within the ellipsoid lacks room [n, 2^k] for the last axes."""
    rest = 1.0 - _unit(corners).square().sum(2)
    needed = ellipsoid.lengths[-1] * rest.clamp(min=0.0).sqrt()
    return ((rest >= 0) & (room <= needed)).any(1)


def _corners(cells: _Cells) -> Tensor:
    """Grid indices [n, 2^k, k]."""
    k = cells.low.shape[1]
    if not k:
        return cells.low[:, None]
    bits = torch.arange(1 << k, device="cpu")[:, None] >> torch.arange(k, device="cpu") & 1
    return torch.where(bits.bool(), cells.high[:, None], cells.low[:, None])


class _Table:
    """log b at the grid's points, each computed when it is first asked for."""

    def __init__(self, ellipsoid: Ellipsoid, miss_bounds: Callable[[Tensor], Tensor]) -> None:
        self._ellipsoid, self._miss_bounds = ellipsoid, miss_bounds
        self._side = (1 << DEPTH) + 1
        self._found = torch.full(
            (anchors(ellipsoid),), torch.nan, dtype=torch.float64, device="cpu"
        )

    def log_bounds(self, corners: Tensor) -> Tensor:
        """For grid indices [n, 2^k, k]; [n, 2^k]."""
        powers = self._side ** torch.arange(corners.shape[2], device="cpu")
        number = (corners * powers).sum(2)
        new = number[self._found[number].isnan()].unique()
        if len(new):
            unit = _unit((new[:, None] // powers) % self._side)
            means = (unit * self._ellipsoid.lengths[:-1]) @ self._ellipsoid.unit.mT
            self._found[new] = self._miss_bounds(means).log()
        return self._found[number]
