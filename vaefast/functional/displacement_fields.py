"""Receptive fields: units of convolutions pulled back over the part of each layer that they see.

Positions whose fields are cut by the borders in the same way are pulled back together: the filters
are the same for all of them, and the slopes are those of each position's window.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise, product
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vaefast.functional.displacement_layers import LayerMap
from vaefast.functional.layers import adjoint_window
from vaefast.types import Layer

__all__ = ["Block", "Seen", "blocks", "pulled", "seen_by"]

Pads = tuple[int, ...]  # before and after; cropped where negative


class Field(NamedTuple):
    """What one output position reads along one axis.

    Args:
        pads: of each product and each sum on the way back, in the order in which they are met.
        spans: layer ↦ first position of its output and the one past the last; −1 for the input.
    """

    pads: tuple[Pads, ...]
    spans: dict[int, tuple[int, int]]


class Block(NamedTuple):
    """Output positions of a layer that have fields of one shape.

    Args:
        positions: [P] int64, flat.
        pads: as in :class:`Field`, for each axis.
        features: layer ↦ flat features of its output that each position sees, [P, C·sizes].
        shapes: layer ↦ channels and sizes.
    """

    positions: Tensor
    pads: list[tuple[Pads, ...]]
    features: dict[int, Tensor]
    shapes: dict[int, tuple[int, ...]]

    def part(self, chosen: slice) -> Block:
        features = {level: index[chosen] for level, index in self.features.items()}
        return self._replace(positions=self.positions[chosen], features=features)

    def seen(self, level: int, values: Tensor) -> Tensor:
        """Of [b, features] what each position sees, [b, P, C·sizes]."""
        return values[:, self.features[level]]

    @property
    def entries(self) -> int:
        """Of one row of one position, in all layers."""
        return sum(math.prod(shape) for shape in self.shapes.values())


class Seen(NamedTuple):
    """Rows of a layer's channels over their fields, as ``Pulled`` holds whole ones.

    Args:
        units: layer ↦ [b, P, channels, C·sizes], [1, 1, ...] where all are the same.
        root: likewise, at the input.
    """

    units: dict[int, Tensor]
    root: Tensor


def seen_by(layers: Sequence[Layer], index: int) -> bool:
    """Whether the layer's units have fields: images all the way, each read as it was made."""
    chain = layers[: index + 1]
    shapes = [chain[0].in_shape, *(layer.out_shape for layer in chain)]
    axes = len(shapes[0])
    return (
        all(layer.kind != "linear" and len(layer.in_shape) == axes for layer in chain)
        and all(before.out_shape == after.in_shape for before, after in pairwise(chain))
        and all(
            layer.residual is None or shapes[layer.residual + 1] == layer.out_shape
            for layer in chain
        )
        and all(not layer.activation.startswith("maxmin") for layer in chain)
    )


def blocks(layers: Sequence[Layer], index: int, like: Tensor) -> list[Block] | None:
    """All positions of a layer's output; None where one of them sees nothing of a layer."""
    sizes = layers[index].out_shape[1:]
    groups: list[dict[tuple, list[tuple[int, Field]]]] = []
    for axis, size in enumerate(sizes):
        along: dict[tuple, list[tuple[int, Field]]] = {}
        for at in range(size):
            field = _field(layers, index, axis, at)
            if field is None:
                return None
            lengths = tuple(stop - start for start, stop in field.spans.values())
            along.setdefault((field.pads, lengths), []).append((at, field))
        groups.append(along)
    found = []
    for chosen in product(*[along.values() for along in groups]):
        found.append(_block(layers, index, chosen, like))
    return found


def _field(layers: Sequence[Layer], index: int, axis: int, at: int) -> Field | None:
    spans, pads = {index: (at, at + 1)}, []
    for level in range(index, -1, -1):
        span, k = spans[level], layers[level].residual
        if k is not None:
            pads.append(_joined(spans, k, span))
        read, pad = _read(layers[level], axis, *span)
        if read[0] >= read[1]:
            return None
        pads.append(pad)
        pads.append(_joined(spans, level - 1, read))
    return Field(tuple(pads), spans)


def _joined(spans: dict[int, tuple[int, int]], level: int, span: tuple[int, int]) -> Pads:
    """Widen a layer's span by another: how far either is from both."""
    if level not in spans:
        spans[level] = span
        return (0, 0)
    (a, b), (c, d) = spans[level], span
    start, stop = spans[level] = min(a, c), max(b, d)
    return (a - start, stop - b, c - start, stop - d)


def _read(layer: Layer, axis: int, start: int, stop: int) -> tuple[tuple[int, int], Pads]:
    """What outputs [start, stop) read of n inputs, and how their rows are padded for it.

    The product of a convolution's rows is cut to the inputs that exist; of a transposed one the
    rows are padded, so that they begin where the window of an input begins.
    """
    n, s = layer.in_shape[1 + axis], layer.stride[axis]
    if layer.kind == "upsample_nearest":
        first, last = start // s, (stop - 1) // s + 1
        return (first, last), (start - first * s, last * s - stop)
    p = layer.padding[axis]
    window = (layer.kernel[axis] - 1) * (layer.dilation[axis] if layer.dilation else 1)
    if layer.kind == "conv_transpose":
        first, last = max(0, -((window - start - p) // s)), min(n, (stop - 1 + p) // s + 1)
        return (first, last), (start - first * s + p, (last - 1) * s - p + window + 1 - stop)
    first, last = start * s - p, (stop - 1) * s - p + window + 1
    inside = max(first, 0), min(last, n)
    return inside, (first - inside[0], inside[1] - last)


def _block(
    layers: Sequence[Layer],
    index: int,
    chosen: tuple[list[tuple[int, Field]], ...],
    like: Tensor,
) -> Block:
    shapes: dict[int, tuple[int, ...]] = {}
    features: dict[int, Tensor] = {}
    fields = [[field for _, field in along] for along in chosen]
    for level in fields[0][0].spans:
        whole = layers[level].out_shape if level >= 0 else layers[0].in_shape
        sizes = [f[0].spans[level][1] - f[0].spans[level][0] for f in fields]
        starts = [[field.spans[level][0] for field in f] for f in fields]
        shapes[level] = (whole[0], *sizes)
        features[level] = _flat(whole, starts, sizes).to(like.device)
    at = [[position for position, _ in along] for along in chosen]
    where = _flat((1, *layers[index].out_shape[1:]), at, [1] * len(at))
    pads = [f[0].pads for f in fields]
    return Block(where[:, 0].to(like.device), pads, features, shapes)


def _flat(whole: tuple[int, ...], starts: list[list[int]], sizes: list[int]) -> Tensor:
    """Flat features of windows [P, C·sizes], their starts the products of each axis's."""
    axes = len(sizes)
    total = (torch.arange(whole[0], device="cpu") * math.prod(whole[1:])).reshape(-1, *[1] * axes)
    for axis, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        at = torch.tensor(start, dtype=torch.int64, device="cpu")[:, None] + torch.arange(
            size, device="cpu"
        )
        shape = [1] * (2 * axes + 1)
        shape[axis], shape[axes + 1 + axis] = len(start), size
        total = total + math.prod(whole[axis + 2 :]) * at.reshape(shape)
    return total.flatten(axes).flatten(0, axes - 1)


def pulled(
    maps: Sequence[LayerMap], index: int, block: Block, slopes: Sequence[Tensor | None]
) -> Seen:
    """The rows of a layer's channels at a block's positions, back to the input."""
    pads = zip(*block.pads, strict=True)
    into = {index: _identity(maps[index], len(block.shapes[index]) - 1)}
    units: dict[int, Tensor] = {}
    for level in range(index, -1, -1):
        layer_map, rows = maps[level], into.pop(level)
        slope = slopes[level] if level < index else None
        if slope is not None:
            units[level] = rows.flatten(3)
            seen = block.seen(level, slope).unflatten(2, block.shapes[level])
            rows = rows * seen.unsqueeze(2)
        if (k := layer_map.layer.residual) is not None:
            _add(into, k, rows, next(pads))
        below = adjoint_window(
            layer_map.layer, rows.flatten(0, 2), layer_map.weight, next(pads)
        ).unflatten(0, rows.shape[:3])
        _add(into, level - 1, below, next(pads))
    return Seen(units, into[-1].flatten(3))


def _identity(layer_map: LayerMap, axes: int) -> Tensor:
    channels = layer_map.layer.out_shape[0]
    eye = torch.eye(channels, dtype=torch.float64, device="cpu").to(layer_map.weight)
    return eye.reshape(1, 1, channels, channels, *[1] * axes)


def _add(into: dict[int, Tensor], level: int, rows: Tensor, pads: tuple[Pads, ...]) -> None:
    if level not in into:
        into[level] = rows
        return
    old = F.pad(into[level], [size for pad in reversed(pads) for size in pad[:2]])
    into[level] = old + F.pad(rows, [size for pad in reversed(pads) for size in pad[2:]])
