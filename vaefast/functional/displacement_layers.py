"""One layer as bounds of a displacement see it: its linear map, and the units of its activation."""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor

from vaefast.functional.layers import adjoint, apply
from vaefast.functional.secants import Curve, curve
from vaefast.types import Layer

__all__ = ["LayerMap"]


class LayerMap:
    """A layer's products in float64, with W and with |W|.

    A unit is what the activation is applied to: a pre-activation, or the difference of a pair of
    MaxMin's.
    Rows [..., features] are cotangents of the layer's output h or of its pre-activation a.
    """

    def __init__(self, layer: Layer, weight: Tensor) -> None:
        self.layer, self.weight = layer, weight.double()
        self.curve: Curve | None = curve(layer.activation)

    @property
    def pairs(self) -> bool:
        return self.curve is not None and self.curve.pairs

    @cached_property
    def absolute(self) -> Tensor:
        return self.weight.abs()

    def apply(self, h: Tensor) -> Tensor:
        """W h, [..., in] to [..., out]."""
        return apply(self.layer, h, self.weight, None)

    def spread(self, h: Tensor) -> Tensor:
        """|W| h."""
        return apply(self.layer, h, self.absolute, None)

    def pull(self, rows: Tensor) -> Tensor:
        """Rows of the pre-activation to rows of the layer's input: N W."""
        return adjoint(self.layer, rows, self.weight)

    def rows(self) -> Tensor:
        """The rows of W as those of a pulled-back identity, [out, in]."""
        if self.layer.kind == "linear":
            return self.weight
        return self.pull(
            torch.eye(self.layer.out_features, dtype=torch.float64, device="cpu").to(self.weight)
        )

    def row_norms(self) -> Tensor:
        """The norms of the rows of W, [out]: they differ between positions where borders cut."""
        ones = self.weight.new_ones(self.layer.in_features)
        squares = apply(self.layer, ones, self.weight.square(), None)
        if self.layer.kind == "avg_pool":  # it averages the squares of its weights, all equal
            squares = squares / math.prod(self.layer.kernel)
        return squares.sqrt()

    def units(self, t: Tensor) -> Tensor:
        """Features to units: pre-activations, or cotangents of h on that side of the activation."""
        return t[..., 0::2] - t[..., 1::2] if self.pairs else t

    def unit_rows(self, rows: Tensor) -> Tensor:
        """Rows [out, n] of pre-activations to those of the units, [units, n]."""
        return rows[0::2] - rows[1::2] if self.pairs else rows

    def unit_sizes(self, t: Tensor) -> Tensor:
        """Bounds of features' magnitudes [..., out] to those of units."""
        return t[..., 0::2] + t[..., 1::2] if self.pairs else t

    def steepened(self, t: Tensor, steepest: Tensor | None) -> Tensor:
        """Bounds of the pre-activations' magnitudes to those of h, units no steeper than this."""
        if self.pairs:  # neither of a pair moves further than the one that moves more
            return torch.maximum(t[..., 0::2], t[..., 1::2]).repeat_interleave(2, dim=-1)
        return t if steepest is None else t * steepest

    def through(self, rows: Tensor, slope: Tensor) -> Tensor:
        """Cotangents of h to those of a, where a unit has this slope."""
        if not self.pairs:
            return rows * slope
        moved = self.units(rows) * slope  # (max, min) = (β + relu(α − β), α − relu(α − β))
        return torch.stack((rows[..., 1::2] + moved, rows[..., 0::2] - moved), -1).flatten(-2)
