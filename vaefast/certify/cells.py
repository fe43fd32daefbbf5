"""Cells of an ellipsoid of posteriors, each shown to keep its probability above ½, or divided.

A posterior that an input ball can reach is y = U(t, y_r) with Σ t_i²/a_i² + ‖y_r‖²/a² ≤ 1. A cell
is a box of t along the first j axes. It holds if, for all of them at once,

    Φ⁻¹(1 − b(t)) > a_{j+1} ρ(t),     ρ(t)² = 1 − Σ_{i≤j} t_i²/a_i²

where log b is bounded by the largest log of the box's corners plus ½ Σ_i w_i (ℓ_i/2)² (log-convex
interpolation). The first cell has no axis: that is Neyman and Pearson's condition. A cell that
fails gets the next axis or is halved along its longest side. All corners lie on one dyadic grid,
whose size is the number of anchors that could be asked for.

With a scale that moves with the input, y = [m; √2 e]: a group of cells shares one scale e_c, and
what is left of the scale is paid as in :mod:`vaefast.certify.tolerance` ("mean first").

Source: mathematics.md 8.6 (I), (E), (R), adaptive form.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from vaefast.certify.tolerance import scale_cost

__all__ = ["Ellipsoid", "anchors", "centres", "covered"]

DEPTH = 4  # halvings of an axis
ROUNDS = 64
CELLS = 5_000  # undecided at once; more are given up
GROUPED = 2  # axes that groups are divided along
GROUP_DEPTH = 2
ANGLES = 16  # of the split between the remaining mean and scale


class Ellipsoid(NamedTuple):
    """Axes of {y : yᵀQ⁻¹y ≤ 1}, the longest first.

    Args:
        mean: U_m [d, k], what a unit along each axis does to the whitened mean.
        log_scale: U_e [d, k], what it does to log σ; zeros where σ is fixed.
        lengths: a [k + 1], with that of the next axis, 0 where there is none.
        moves_scale: whether σ moves at all.
    """

    mean: Tensor
    log_scale: Tensor
    lengths: Tensor
    moves_scale: bool

    @classmethod
    def of(cls, Q: Tensor, latents: int, axes: int) -> Ellipsoid:
        """The longest axes of Q [m, m] float64, m = d (σ fixed) or 2d (y = [m; √2 e])."""
        values, vectors = torch.linalg.eigh(Q)
        values, vectors = values.flip(0).clamp(min=0.0), vectors.flip(1)
        k = min(axes, len(values))
        lengths = torch.zeros(k + 1, dtype=torch.float64, device="cpu")
        lengths[: min(k + 1, len(values))] = values[: k + 1].sqrt()
        moves = len(values) > latents
        unit = vectors[:, :k]
        lower = unit[latents:] / math.sqrt(2.0) if moves else torch.zeros_like(unit)
        return cls(unit[:latents], lower, lengths * (1 + 1e-9), moves)

    @property
    def axes(self) -> int:
        return len(self.lengths) - 1


def groups(ellipsoid: Ellipsoid) -> int:
    """How many scales the anchors may be asked for at."""
    axes = min(GROUPED, ellipsoid.axes) if ellipsoid.moves_scale else 0
    return sum((1 << depth) ** axes for depth in range(GROUP_DEPTH + 1)) if axes else 1


def anchors(ellipsoid: Ellipsoid) -> int:
    """How many anchors there could be, whatever the draws say."""
    return groups(ellipsoid) * ((1 << DEPTH) + 1) ** ellipsoid.axes


def centres(ellipsoid: Ellipsoid) -> Tensor:
    """t_c [groups, k] of each group: the middle of its bins, 0 along other axes."""
    axes = min(GROUPED, ellipsoid.axes)
    found = torch.zeros(groups(ellipsoid), ellipsoid.axes, dtype=torch.float64, device="cpu")
    first = 1
    for depth in range(1, GROUP_DEPTH + 1) if len(found) > 1 else ():
        bins = 1 << depth
        number = torch.arange(bins**axes, device="cpu")
        for axis in range(axes):
            unit = ((number // bins**axis) % bins + 0.5) * (2.0 / bins) - 1.0
            found[first : first + len(number), axis] = unit * ellipsoid.lengths[axis]
        first += len(number)
    return found


def covered(ellipsoid: Ellipsoid, miss_bounds: Callable[[Tensor, Tensor], Tensor]) -> bool:
    """Whether every posterior of the ellipsoid is shown to keep its probability above ½.

    Args:
        miss_bounds: (means [n, d], log_scale [d]) ↦ upper bounds [n] of the misses' probability,
            valid for all the points that :func:`anchors` counts at once.
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
    group = _group(ellipsoid, cells)
    corners = _corners(cells)  # [n, 2^k, k]
    centre = table.centres[group]  # [n, k]
    log_scale = centre @ ellipsoid.log_scale.mT  # e_c [n, d]
    half = 0.5 * (_unit(cells.high) - _unit(cells.low)) * ellipsoid.lengths[:-1]
    narrow = (-2.0 * log_scale).exp() @ ellipsoid.mean.square()  # w_i [n, k]
    exponent = 0.5 * (narrow * half.square()).sum(1)
    log_b = table.log_bounds(group, corners)
    lost = _lost(ellipsoid, corners, _room(log_b))
    room = _room(log_b.amax(1) + exponent)
    remaining = _remaining(ellipsoid, cells)
    if not ellipsoid.moves_scale:
        return room > remaining, lost
    t = _unit(corners) * ellipsoid.lengths[:-1] - centre[:, None]
    left = torch.linalg.vector_norm(t @ ellipsoid.log_scale.mT, dim=2).amax(1)  # E₀
    return room > _with_scale(remaining, left, (-log_scale).exp().amax(1)), lost


def _room(log_b: Tensor) -> Tensor:
    """Φ⁻¹(1 − b)."""
    return -torch.special.ndtri(log_b.exp().clamp(max=1.0))


def _lost(ellipsoid: Ellipsoid, corners: Tensor, room: Tensor) -> Tensor:
    """Whether a corner [n, 2^k, k] within the ellipsoid lacks room [n, 2^k] for the last axes."""
    rest = 1.0 - _unit(corners).square().sum(2)
    needed = ellipsoid.lengths[-1] * rest.clamp(min=0.0).sqrt()
    return ((rest >= 0) & (room <= needed)).any(1)


def _with_scale(remaining: Tensor, left: Tensor, narrow: Tensor) -> Tensor:
    """The most that the rest of the mean and of the scale cost, over how they share it; [n]."""
    angle = torch.linspace(0.0, 0.5 * math.pi, ANGLES + 1, dtype=torch.float64, device="cpu")
    shift = remaining[:, None] * angle[:-1].cos() * narrow[:, None]
    scale = left[:, None] + remaining[:, None] * angle[1:].sin() / math.sqrt(2.0)
    return (shift + scale_cost(scale)).amax(1)


def _corners(cells: _Cells) -> Tensor:
    """Grid indices [n, 2^k, k]."""
    k = cells.low.shape[1]
    if not k:
        return cells.low[:, None]
    bits = torch.arange(1 << k, device="cpu")[:, None] >> torch.arange(k, device="cpu") & 1
    return torch.where(bits.bool(), cells.high[:, None], cells.low[:, None])


def _group(ellipsoid: Ellipsoid, cells: _Cells) -> Tensor:
    """The number of the smallest group that holds each cell: coarse ones first, [n] int64."""
    found = torch.zeros_like(cells.used)
    axes = min(GROUPED, ellipsoid.axes) if ellipsoid.moves_scale else 0
    first = 1
    for depth in range(1, GROUP_DEPTH + 1) if axes else ():
        width = (1 << DEPTH) >> depth
        bins = (cells.low[:, :axes] // width).clamp(max=(1 << depth) - 1)
        inside = (cells.high[:, :axes] <= (bins + 1) * width).all(1) & (cells.used >= axes)
        powers = (1 << depth) ** torch.arange(axes, device="cpu")
        found = torch.where(inside, first + (bins * powers).sum(1), found)
        first += (1 << depth) ** axes
    return found


class _Table:
    """log b at the grid's points, each computed when it is first asked for.

    Args:
        centres: [groups, k], t_c, whose scale a group's anchors have.
    """

    def __init__(
        self, ellipsoid: Ellipsoid, miss_bounds: Callable[[Tensor, Tensor], Tensor]
    ) -> None:
        self._ellipsoid, self._miss_bounds = ellipsoid, miss_bounds
        self._side = (1 << DEPTH) + 1
        count = self._side**ellipsoid.axes
        self._found = torch.full(
            (groups(ellipsoid), count), torch.nan, dtype=torch.float64, device="cpu"
        )
        self.centres = centres(ellipsoid)

    def log_bounds(self, group: Tensor, corners: Tensor) -> Tensor:
        """For each cell's group [n] and corners [n, 2^k, k]; [n, 2^k]."""
        powers = self._side ** torch.arange(corners.shape[2], device="cpu")
        number = (corners * powers).sum(2)
        for one in group.unique().tolist():
            wanted = number[group == one].unique()
            new = wanted[self._found[one][wanted].isnan()]
            if len(new):
                self._found[one][new] = self._bounds(one, new, powers)
        return self._found[group[:, None], number]

    def _bounds(self, group: int, number: Tensor, powers: Tensor) -> Tensor:
        unit = _unit((number[:, None] // powers) % self._side)
        t, own = unit * self._ellipsoid.lengths[:-1], self._ellipsoid
        log_scale = own.log_scale @ self.centres[group]
        return self._miss_bounds(t @ own.mean.mT, log_scale).log()
