"""How far each unit's pre-activation moves while the input stays in a ball."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vaefast.functional import displacement_fields, relaxations
from vaefast.functional.displacement_fields import Block
from vaefast.functional.displacement_layers import LayerMap
from vaefast.functional.displacement_walk import ULP, Pulled, Walk
from vaefast.functional.relaxations import Affine
from vaefast.runtime import memory

__all__ = ["Intervals", "along", "intervals", "slack", "times"]

AT_ONCE = 16  # positions whose rows stay in the processor's caches


class Intervals(NamedTuple):
    """Of each layer; None where the activation is the identity.

    Args:
        low, high: the units' u, [b, units], low ≤ 0 ≤ high.
        affine: their relaxations.
        reach: [out] or [b, out], how far a pre-activation moves per unit of the radius, with all
            absolute values taken: what rounding is measured by.
        rounding: [b, out], how far the computed pre-activations are from exact ones.
        out: reach and rounding of the network's output.
    """

    low: list[Tensor | None]
    high: list[Tensor | None]
    affine: list[Affine | None]
    reach: list[Tensor]
    rounding: list[Tensor]
    out: tuple[Tensor, Tensor]

    def ends(self, index: int) -> tuple[Tensor, Tensor]:
        """Of a nonlinear layer."""
        low, high = self.low[index], self.high[index]
        assert low is not None
        assert high is not None
        return low, high

    def units(self, index: int) -> tuple[Tensor, Tensor, Affine]:
        """Ends and relaxations of a nonlinear layer."""
        affine = self.affine[index]
        assert affine is not None
        return *self.ends(index), affine

    @property
    def slopes(self) -> list[Tensor | None]:
        return [None if relaxed is None else relaxed.slope for relaxed in self.affine]


def slack(walk: Walk) -> float:
    """What rounding takes off a product of pulled rows, per unit of ``reach``.

    Sums of n products err by n ULP of the sum of their magnitudes, and there is one such sum after
    the other; sixteen times that leaves room for slopes and factors.
    """
    sizes = [layer_map.layer.in_features + 8 for layer_map in walk.maps]
    return 16.0 * ULP * sum(sizes) * (1 + len(sizes))


def intervals(
    walk: Walk,
    rows: slice | Tensor,
    radius: Tensor,
    ends: Sequence[tuple[Tensor, Tensor]] | None = None,
    *,
    plain: bool = False,
) -> Intervals:
    """Layer by layer: affine forms of the units pulled back, intersected with plain intervals.

    ``ends``: the units' u of each nonlinear layer, [b, units], where they are known.
    ``plain``: the plain intervals alone where there are any.
    """
    if ends is not None:
        return _of_ends(walk, rows, radius, iter(ends))
    found = Intervals([], [], [], [], [], (radius, radius))
    ball = radius[:, None].expand(-1, walk.x.shape[1])
    ranges: list[tuple[Tensor, Tensor] | None] = [(-ball, ball)]  # of layer l's output at l + 1
    reaches, roundings = [walk.x.new_ones(walk.x.shape[1])], [torch.zeros_like(walk.x[rows])]
    for index, layer_map in enumerate(walk.maps):
        k = layer_map.layer.residual
        reach = _reach(walk, index, reaches)
        rounding = layer_map.spread(roundings[-1]) + _rounded(walk, index, rows)
        if k is not None:
            rounding = rounding + roundings[k + 1]
        moved = _interval(walk, index, ranges)
        found.reach.append(reach)
        found.rounding.append(rounding)
        steepest = _unit_ranges(walk, index, rows, radius, moved, found, plain)
        ranges.append(_moved(walk, index, rows, moved, found))
        reaches.append(layer_map.steepened(reach, steepest))
        roundings.append(layer_map.steepened(rounding, steepest))
    return found._replace(out=(reaches[-1], roundings[-1]))


def _of_ends(
    walk: Walk, rows: slice | Tensor, radius: Tensor, ends: Iterator[tuple[Tensor, Tensor]]
) -> Intervals:
    """Those of an MLP, without relaxations and without what rounding adds."""
    found = Intervals([], [], [], [], [], (radius, radius))
    reaches = [walk.x.new_ones(walk.x.shape[1])]
    for index, layer_map in enumerate(walk.maps):
        found.reach.append(_reach(walk, index, reaches))
        steepest, low, high = None, None, None
        if layer_map.curve is not None:
            low, high = next(ends)
            steepest = relaxations.lipschitz(layer_map.curve, walk.anchors(index, rows), high)
        found.low.append(low)
        found.high.append(high)
        reaches.append(layer_map.steepened(found.reach[-1], steepest))
    return found


def _reach(walk: Walk, index: int, reaches: list[Tensor]) -> Tensor:
    layer_map = walk.maps[index]
    k = layer_map.layer.residual
    if index == 0:
        return walk.first_norms
    reach = layer_map.spread(reaches[-1])
    return reach if k is None else reach + reaches[k + 1]


def _rounded(walk: Walk, index: int, rows: slice | Tensor) -> Tensor:
    """What rounding adds to a layer's pre-activations, given the ones before: [b, out]."""
    layer_map, bias = walk.maps[index], walk.net.biases[index]
    sums = layer_map.spread(_sizes(walk, index - 1, rows)) + walk.tape.pre[index][rows].abs()
    if (k := layer_map.layer.residual) is not None:
        sums = sums + _sizes(walk, k, rows)
    if bias is not None:
        per_feature = bias.abs().repeat_interleave(layer_map.layer.out_features // len(bias))
        sums = sums + per_feature
    return (layer_map.layer.in_features + 16) * ULP * sums


def _sizes(walk: Walk, index: int, rows: slice | Tensor) -> Tensor:
    """What the rounding of a layer's output is measured by; of the input at −1."""
    if index < 0:
        return walk.x[rows].abs()
    return walk.tape.post[index][rows].abs() + walk.tape.pre[index][rows].abs()


def _interval(
    walk: Walk, index: int, ranges: list[tuple[Tensor, Tensor] | None]
) -> tuple[Tensor, Tensor] | None:
    """Of pre-activations, from the ranges of what goes in; None where one of them is not known."""
    layer_map = walk.maps[index]
    k, before = layer_map.layer.residual, ranges[-1]
    added = None if k is None else ranges[k + 1]
    if before is None or (k is not None and added is None):
        return None
    low, high = before
    if index == 0:
        half = high[:, :1] * walk.first_norms
        return -half, half
    middle, half = layer_map.apply(0.5 * (low + high)), layer_map.spread(0.5 * (high - low))
    low, high = middle - half, middle + half
    return (low, high) if added is None else (low + added[0], high + added[1])


def _unit_ranges(
    walk: Walk,
    index: int,
    rows: slice | Tensor,
    radius: Tensor,
    moved: tuple[Tensor, Tensor] | None,
    found: Intervals,
    plain: bool,
) -> Tensor | None:
    """Append the layer's intervals and relaxations; returns its steepest slopes."""
    layer_map = walk.maps[index]
    if layer_map.curve is None:
        for part in (found.low, found.high, found.affine):
            part.append(None)
        return None
    low, high = _between(layer_map, moved) if moved is not None else (None, None)
    if low is None or high is None or not plain:
        least, most = _affine_interval(walk, index, radius, found)
        low = least if low is None else torch.maximum(low, least)
        high = most if high is None else torch.minimum(high, most)
    pad = slack(walk) * radius[:, None] * layer_map.unit_sizes(found.reach[index])
    low, high = (low - pad).clamp(max=0.0), (high + pad).clamp(min=0.0)
    anchors = walk.anchors(index, rows)
    found.low.append(low)
    found.high.append(high)
    found.affine.append(relaxations.affine(layer_map.curve, anchors, low, high))
    return relaxations.lipschitz(layer_map.curve, anchors, high)


def _between(layer_map: LayerMap, moved: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Features' intervals to those of units."""
    low, high = moved
    if layer_map.pairs:
        return low[..., 0::2] - high[..., 1::2], high[..., 0::2] - low[..., 1::2]
    return low, high


def _affine_interval(
    walk: Walk, index: int, radius: Tensor, found: Intervals
) -> tuple[Tensor, Tensor]:
    """shift ± (R‖row‖ + Σ |N| ε) of each unit of a layer, [b, units]."""
    blocks = walk.blocks(index)
    if blocks is None:
        return _of_rows(walk.of_layer(index, found.slopes), radius, found)
    channels = walk.maps[index].layer.out_shape[0]
    low = radius.new_empty(len(radius), channels, walk.maps[index].layer.out_features // channels)
    high = torch.empty_like(low)
    for block in blocks:
        for part in memory.row_chunks(
            len(block.positions), 32 * len(radius) * channels * block.entries, AT_ONCE
        ):
            one = block.part(part)
            ends = _of_fields(walk, index, one, radius, found)
            low[:, :, one.positions], high[:, :, one.positions] = ends
    return low.flatten(1), high.flatten(1)


def _of_fields(
    walk: Walk, index: int, block: Block, radius: Tensor, found: Intervals
) -> tuple[Tensor, Tensor]:
    """Of the channels at a block's positions, [b, channels, P]."""
    seen = displacement_fields.pulled(walk.maps, index, block, found.slopes)
    half = radius[:, None, None] * seen.root.norm(dim=-1)
    middle = torch.zeros_like(half)
    for k, rows in seen.units.items():
        _, _, relaxed = found.units(k)
        middle = middle + along(rows, block.seen(k, relaxed.shift))
        half = half + along(rows.abs(), block.seen(k, relaxed.error))
    return (middle - half).mT, (middle + half).mT


def along(rows: Tensor, v: Tensor) -> Tensor:
    """[b, P, n, u] or [1, 1, n, u] times [b, P, u]: [b, P, n]."""
    same = rows.shape[:2] == (1, 1)
    return v @ rows[0, 0].mT if same else (rows @ v.unsqueeze(-1)).squeeze(-1)


def _of_rows(pulled: Pulled, radius: Tensor, found: Intervals) -> tuple[Tensor, Tensor]:
    """Of each whole row, [b, n]."""
    half = radius[:, None] * pulled.root.norm(dim=-1)
    middle = torch.zeros_like(half)
    for k, rows in pulled.units.items():
        _, _, relaxed = found.units(k)
        middle = middle + times(rows, relaxed.shift)
        half = half + times(rows.abs(), relaxed.error)
    return middle - half, middle + half


def times(rows: Tensor, v: Tensor) -> Tensor:
    """[n, u] or [b, n, u] times [b, u]: [b, n]."""
    return v @ rows.mT if rows.ndim == 2 else (rows @ v.unsqueeze(-1)).squeeze(-1)


def _moved(
    walk: Walk,
    index: int,
    rows: slice | Tensor,
    moved: tuple[Tensor, Tensor] | None,
    found: Intervals,
) -> tuple[Tensor, Tensor] | None:
    """The range of the layer's output's displacement."""
    layer_map = walk.maps[index]
    if layer_map.curve is None:
        return moved
    if layer_map.pairs:
        return None
    low, high, relaxed = found.units(index)
    return relaxations.moves(layer_map.curve, relaxed, walk.anchors(index, rows), low, high)
