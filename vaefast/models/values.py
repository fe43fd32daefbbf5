"""Values of a trace as layers and the places in them, and what may be folded into a layer.

A :class:`Value` says where each of its elements lies in the output of a step, so views, slices and
permutations cost nothing until a layer takes it. Scales and shifts wait beside it until a
neighbour takes them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vaefast.models.plans import CannotLower, Step, Values
from vaefast.types import WEIGHTED, Layer

__all__ = ["ROWS", "Affine", "Logarithm", "Value", "fresh", "rescaled"]

ROWS = 2  # of the batch that is traced

Vector = Callable[[Values], Tensor]  # [width] float64


@dataclass(frozen=True, eq=False)
class Affine:
    """h ↦ scale·h + shift on a step's flat output, not yet folded into a neighbour.

    Args:
        scale, shift: [width] float64, from the values of the moment.
        patterns: [width] each; entries that are equal stand where a factor is the same for all
            values that the module's tensors may have.
    """

    scale: Vector
    shift: Vector | None
    patterns: tuple[Tensor, ...]

    def per_channel(self, channels: int) -> bool:
        """Whether the factors are the same for all pixels of a channel."""
        rows = [pattern.reshape(channels, -1) for pattern in self.patterns]
        return all(bool((row == row[:, :1]).all()) for row in rows)


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of the trace: element e is the step's flat output at ``index[e]``.

    Args:
        step: whose output [ROWS, width] is meant, numbered in that order.
        index: int64, in the tensor's shape.
        affine: what is done to the step's output before.
    """

    step: Step
    index: Tensor
    affine: Affine | None = None

    @property
    def shape(self) -> torch.Size:
        return self.index.shape

    def features(self) -> Tensor:
        """Which features of the step one row holds, in order; the tensor must keep its rows."""
        index, width = self.index, self.step.width
        if index.ndim == 0 or len(index) != ROWS:
            raise CannotLower("moves or mixes the rows of the batch")
        rows = index.reshape(ROWS, -1)
        if not torch.equal(rows[0] + width, rows[1]) or (rows[0] >= width).any():
            raise CannotLower("moves or mixes the rows of the batch")
        return rows[0]

    def whole(self) -> bool:
        """Whether one row is the step's output itself, in order."""
        features = self.features()
        return len(features) == self.step.width and bool(
            (features == torch.arange(len(features), device="cpu")).all()
        )


@dataclass(frozen=True, eq=False)
class Logarithm:
    """factor·log(value), which no layer computes; the reason names where it was taken."""

    value: Value
    factor: float = 1.0
    reason: str = ""


def fresh(step: Step, shape: tuple[int, ...]) -> Value:
    """The output of a step as a tensor [ROWS, *shape]."""
    return Value(step, torch.arange(ROWS * step.width, device="cpu").reshape(ROWS, *shape))


def rescaled(value: Value, scale: Vector | None, shift: Vector | None, like: Tensor) -> Value:
    """scale·value + shift; both give tensors that broadcast to the value's shape.

    ``like`` has distinct entries where the factors may differ, and their shape.
    """
    place, step = _Place.of(value), value.step

    def scales(values: Values) -> Tensor:
        one = torch.ones((), device=values.device, dtype=torch.float32)
        return place(scale(values) if scale else one, 1.0)

    def shifts(values: Values) -> Tensor:
        assert shift is not None
        return place(shift(values), 0.0)

    affine = Affine(scales, None if shift is None else shifts, (place(like, -1.0),))
    if value.affine is not None:
        return replace(value, affine=_composed(value.affine, affine))
    if step.open and step.layer.kind in WEIGHTED and affine.per_channel(step.layer.out_shape[0]):
        return replace(value, step=_rows_scaled(step, affine))
    return replace(value, affine=affine)


class _Place:
    """Puts a tensor that broadcasts against a value where the value lies in its step."""

    def __init__(self, shape: torch.Size, mask: Tensor, positions: Tensor, width: int) -> None:
        self.shape, self.mask, self.positions, self.width = shape, mask, positions, width

    @classmethod
    def of(cls, value: Value) -> _Place:
        mask = value.index < value.step.width
        positions = value.index[mask]
        if len(positions.unique()) != len(positions):
            raise CannotLower("scales or shifts copies of one feature")
        return cls(value.shape, mask, positions, value.step.width)

    def __call__(self, t: Tensor, neutral: float) -> Tensor:
        full = t.double().expand(self.shape)
        out = torch.full((self.width,), neutral, dtype=torch.float64, device=t.device)
        out[self.positions.to(t.device)] = full[self.mask.to(t.device)]
        return out


def _composed(first: Affine, then: Affine) -> Affine:
    def scale(values: Values) -> Tensor:
        return first.scale(values) * then.scale(values)

    def shift(values: Values) -> Tensor:
        moved = then.shift(values) if then.shift else torch.zeros_like(then.scale(values))
        return moved + first.shift(values) * then.scale(values) if first.shift else moved

    any_shift = first.shift or then.shift
    return Affine(scale, shift if any_shift else None, (*first.patterns, *then.patterns))


def _rows_scaled(step: Step, affine: Affine) -> Step:
    """The step followed by the affine map, as one step."""
    layer, before = step.layer, step.parameters
    assert before is not None
    channels = layer.out_shape[0]

    def parameters(values: Values) -> tuple[Tensor, Tensor | None]:
        weight, bias = values.pair(before)
        scale = affine.scale(values).reshape(channels, -1)[:, 0]
        bias = None if bias is None else bias.double() * scale
        if affine.shift is not None:
            shift = affine.shift(values).reshape(channels, -1)[:, 0]
            bias = shift if bias is None else bias + shift
        return _scaled_outputs(weight.double(), scale, layer), bias

    return replace(step, parameters=parameters, variants={})


def _scaled_outputs(weight: Tensor, scale: Tensor, layer: Layer) -> Tensor:
    if layer.kind != "conv_transpose":
        return weight * scale.reshape(-1, *(1,) * (weight.ndim - 1))
    grouped = weight.unflatten(0, (layer.groups, -1))  # [groups, in/groups, out/groups, ...]
    return (grouped * scale.reshape(layer.groups, 1, -1, *(1,) * (weight.ndim - 2))).flatten(0, 1)
