"""A layer's units as rows pulled back, for the multiplier form: whole, or over receptive fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vaefast.functional import displacement_fields
from vaefast.functional.displacement_fields import Block, Seen
from vaefast.functional.displacement_intervals import along, times
from vaefast.functional.displacement_walk import Pulled, Walk

__all__ = ["FieldRows", "Level", "WholeRows", "rows_of"]

FLOOR = 1e-9  # of E, in T only


class Level(NamedTuple):
    """A layer's deviations e from its secants' middle, |e| ≤ E|u|: h' − h = C u + e.

    Of the n units that are not linear on their interval; the others have none.

    Args:
        slope: C of all units, [b, units].
        units: which those n are, [b, n]; None for all.
        spread: E, [b, n].
        reach: the largest |u|, [b, n].
        pad: what rounding takes off a row of ``parts``, per unit of the radius, [b, n] or [n].
        parts: Q with u uᵀ ≼ R² Σ Q/w, [b, n, n], or [n, n] of a first layer, all of it; none where
            there is a ``factor``.
        factor: F with u uᵀ ≼ R² F Fᵀ, [b, n, k] or [n, k], of a first layer with n > k.
        own: κ² of T = 1/E.
        rows: of the n units over those below that deviate, and at the input.
        images: whether units see parts of the layers below, so that most of ``parts`` is 0 and
            eigenvalues lie close together.
    """

    slope: Tensor
    units: Tensor | None
    spread: Tensor
    reach: Tensor
    pad: Tensor
    parts: list[Tensor]
    own: Tensor
    rows: Pulled
    factor: Tensor | None = None
    images: bool = False

    def columns(self, N: Tensor) -> Tensor:
        """Those of rows [b, ·, units] or [·, units] that deviate: [b, ·, n]."""
        if self.units is None:
            return N
        N = N.expand(len(self.units), -1, -1)
        return N.gather(2, self.units.unsqueeze(1).expand(-1, N.shape[1], -1))

    def whole(self, values: Tensor) -> Tensor:
        """Of the n units, [b, n], as of all, 0 elsewhere: [b, units]."""
        if self.units is None:
            return values
        return torch.zeros_like(self.slope).scatter_(1, self.units, values)

    @property
    def inverse(self) -> Tensor:
        """1/T of T = 1/E; 0 for units that do not deviate."""
        return torch.where(self.spread > 0, self.spread.clamp(min=FLOOR), 0.0)


def rows_of(
    walk: Walk, index: int, slopes: Sequence[Tensor | None], levels: dict[int, Level]
) -> WholeRows | FieldRows:
    """The units of a layer, given the levels below it."""
    blocks = walk.blocks(index)
    if blocks is None:
        return WholeRows(walk.of_layer(index, slopes), levels)
    seen = [
        (block, displacement_fields.pulled(walk.maps, index, block, slopes)) for block in blocks
    ]
    return FieldRows(seen, walk.maps[index].layer.out_shape[0], walk.x.shape[1], levels)


class WholeRows:
    """Rows over all of the layers below."""

    images = False

    def __init__(self, pulled: Pulled, levels: dict[int, Level]) -> None:
        self.pulled, self.levels = pulled, levels

    def bound(self, radius: Tensor) -> Tensor:
        """‖row‖ + Σ min(κ‖N T^−½‖, Σ |N| E r/R) with T = 1/E, per unit of the radius: [b, n]."""
        total = self.pulled.root.norm(dim=-1)
        for k, N in self.pulled.units.items():
            level = self.levels[k]
            columns = level.columns(N)
            weighted = level.own.sqrt()[:, None] * times(columns.square(), level.inverse).sqrt()
            plain = times(columns.abs(), level.spread * level.reach) / radius[:, None]
            total = total + torch.where(plain < weighted, plain, weighted)
        return total

    def deviating(self, spread: Tensor) -> Tensor | None:
        """The units with an E > 0, as many as the row with most has, [b, n]; None of nearly all."""
        most = _most(spread)
        if 8 * most > 7 * spread.shape[1]:
            return None
        return spread.topk(max(most, 1), dim=1).indices

    def chosen(self, units: Tensor | None) -> Pulled:
        """The rows of these units, over those of the units below that deviate."""
        found = {k: self.levels[k].columns(_rows(N, units)) for k, N in self.pulled.units.items()}
        return Pulled(found, _rows(self.pulled.root, units))


class FieldRows:
    """Rows over the parts of the layers below that they see; units are ordered by position.

    Args:
        seen: the blocks of the layer's positions and their channels' rows.
        channels: of the layer.
        inputs: entries of the network's input.
        levels: those below.
    """

    images = True

    def __init__(
        self, seen: list[tuple[Block, Seen]], channels: int, inputs: int, levels: dict[int, Level]
    ) -> None:
        self.seen, self.channels, self.inputs, self.levels = seen, channels, inputs, levels
        self.positions = sum(len(block.positions) for block, _ in seen)

    def bound(self, radius: Tensor) -> Tensor:
        """As of whole rows, [b, units]."""
        known = {k: self._sizes(level, radius) for k, level in self.levels.items()}
        total = radius.new_empty(len(radius), self.channels, self.positions)
        for block, seen in self.seen:
            half = seen.root.norm(dim=-1)
            for k, rows in seen.units.items():
                squares, sizes = known[k]
                weighted = along(rows.square(), block.seen(k, squares)).sqrt()
                plain = along(rows.abs(), block.seen(k, sizes))
                half = half + torch.where(plain < weighted, plain, weighted)
            total[:, :, block.positions] = half.mT
        return total.flatten(1)

    @staticmethod
    def _sizes(level: Level, radius: Tensor) -> tuple[Tensor, Tensor]:
        """κ²/T and E r/R of all units."""
        squares = level.own[:, None] * level.inverse
        return level.whole(squares), level.whole(level.spread * level.reach / radius[:, None])

    def deviating(self, spread: Tensor) -> Tensor:
        """The units with an E > 0, as many as the row with most has, [b, n], by position."""
        units = spread.topk(max(_most(spread), 1), dim=1).indices
        place = units % self.positions * self.channels + units // self.positions
        return units.gather(1, place.argsort(dim=1))

    def chosen(self, units: Tensor | None) -> Pulled:
        """The rows of these units, over those of the units below that deviate."""
        assert units is not None
        sizes = {k: level.spread.shape[1] for k, level in self.levels.items()}
        seen = {k for _, rows in self.seen for k in rows.units}
        root = units.new_zeros(*units.shape, self.inputs, dtype=torch.float64)
        found = {k: root.new_zeros(*units.shape, sizes[k] + 1) for k in seen}
        for i, own in enumerate(units):
            self._fill(i, own, found, root)
        return Pulled({k: N[..., :-1] for k, N in found.items()}, root)

    def _fill(self, i: int, units: Tensor, found: dict[int, Tensor], root: Tensor) -> None:
        """Row i's; columns of units that do not deviate all go to the last one."""
        place = units.new_full((self.channels * self.positions,), -1)
        place[units] = torch.arange(len(units), device=units.device)
        for block, seen in self.seen:
            at = place.view(self.channels, -1)[:, block.positions].T  # [P, channels]
            here = at >= 0
            into = at[here]
            for k, rows in seen.units.items():
                columns = self._columns(i, k, found[k].shape[-1] - 1)[block.features[k]]
                _scatter(found[k][i], into, here, columns, rows, i)
            _scatter(root[i], into, here, block.features[-1], seen.root, i)

    def _columns(self, i: int, k: int, n: int) -> Tensor:
        """Where the units below stand among those that deviate, the others at n: [units]."""
        level = self.levels[k]
        column = torch.full_like(level.slope[0], n, dtype=torch.int64)
        units = slice(None) if level.units is None else level.units[i]
        column[units] = torch.arange(n, device=column.device)
        return column


def _scatter(
    out: Tensor, into: Tensor, here: Tensor, columns: Tensor, rows: Tensor, i: int
) -> None:
    """Rows [b, P, channels, u] of row i where ``here`` [P, channels], columns [P, u] of ``out``."""
    one = rows[i if len(rows) > 1 else 0].expand(*here.shape, -1)[here]
    where = columns.unsqueeze(1).expand(*here.shape, -1)[here]
    out.view(-1)[into.unsqueeze(1) * out.shape[-1] + where] = one


def _most(spread: Tensor) -> int:
    return int((spread > 0).sum(1).max()) if len(spread) else 0


def _rows(t: Tensor, units: Tensor | None) -> Tensor:
    """Of these units, [b, n, ·]."""
    if units is None:
        return t
    if t.ndim == 2:
        return t[units]
    return t.gather(1, units.unsqueeze(2).expand(-1, -1, t.shape[2]))
