"""A network for bounds of its displacement: the pass at the centres, and pulling rows back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from vaefast.functional import displacement_fields, network
from vaefast.functional.displacement_fields import Block
from vaefast.functional.displacement_layers import LayerMap
from vaefast.functional.network import Tape
from vaefast.runtime import openmp
from vaefast.types import Network

__all__ = ["Pulled", "Walk"]

ULP = 2.0**-52


class Pulled(NamedTuple):
    """Rows pulled back to the input, and what they are on the way.

    Args:
        units: layer ↦ [b, n, units] or [n, units], for nonlinear layers, cotangents of their units.
        root: [b, n, ·] or [n, ·]; the norm of a row times R is the most that it moves.
    """

    units: dict[int, Tensor]
    root: Tensor


class Walk:
    """Layers of a network in float64 and the pre-activations at x [B, D].

    Args:
        tape: pre- and post-activations, [B, features] a layer.
        inputs: how the input enters: by a factor F with F Fᵀ = W₁W₁ᵀ, or None where whole rows
            [n, D] have to be pulled back.
        passed: makes the tape in :func:`network.forward`'s place.
    """

    def __init__(
        self,
        x: Tensor,
        net: Network,
        passed: Callable[[Tensor, Network], Tape] = network.forward,
    ) -> None:
        wide = [w.double().contiguous() for w in net.weights]  # same bits for any layout
        biases = [None if b is None else b.double().contiguous() for b in net.biases]
        self.net = Network(wide, biases, net.layers)
        self.maps = [LayerMap(*pair) for pair in zip(self.net.parsed(), wide)]
        self.x = x.double().contiguous()
        self.tape = passed(self.x, self.net)
        self.factor = self._factor()
        self._blocks: dict[int, list[Block] | None] = {}

    def _factor(self) -> Tensor | None:
        layers = [layer_map.layer for layer_map in self.maps]
        if layers[0].kind != "linear" or any(layer.residual == -1 for layer in layers):
            return None
        weight = self.maps[0].weight
        if weight.shape[1] <= weight.shape[0]:
            return weight
        with openmp.at_most(1):  # the same bits for any number of threads
            return torch.linalg.qr(weight.mT, mode="r").R.mT.contiguous()

    @cached_property
    def first_norms(self) -> Tensor:
        """How far each pre-activation of the first layer moves in the unit ball, [out]."""
        first = self.maps[0]
        if first.layer.kind != "linear" and first.layer.residual is None:
            return first.row_norms()
        rows = first.rows()
        if first.layer.residual is not None:
            rows = rows + torch.eye(len(rows), dtype=torch.float64, device="cpu").to(rows)
        return rows.norm(dim=1)

    def blocks(self, index: int) -> list[Block] | None:
        """The receptive fields of a layer's units; None where whole rows are pulled back."""
        if index not in self._blocks:
            layers = [layer_map.layer for layer_map in self.maps]
            known = displacement_fields.seen_by(layers, index)
            found = displacement_fields.blocks(layers, index, self.x) if known else None
            self._blocks[index] = found
        return self._blocks[index]

    def anchors(self, index: int, rows: slice | Tensor) -> Tensor:
        """The units' pre-activations, [b, units]."""
        return self.maps[index].units(self.tape.pre[index][rows])

    def of_output(self, rows: Tensor, slopes: Sequence[Tensor | None]) -> Pulled:
        """Cotangents [b, n, out] of the network's output, back to the input."""
        return self._pull({len(self.maps) - 1: rows}, len(self.maps) - 1, slopes)

    def of_layer(self, index: int, slopes: Sequence[Tensor | None]) -> Pulled:
        """The units of a layer, back to the input: n = units."""
        layer_map, into = self.maps[index], {}
        if (k := layer_map.layer.residual) is not None:
            eye = torch.eye(layer_map.layer.out_features, dtype=torch.float64, device="cpu").to(
                layer_map.weight
            )
            into[k] = layer_map.unit_rows(eye)
        if index == 0 and self.factor is not None:
            return Pulled({}, layer_map.unit_rows(self.factor))
        _add(into, index - 1, layer_map.unit_rows(layer_map.rows()))
        return self._pull(into, index - 1, slopes)

    def _pull(self, into: dict[int, Tensor], top: int, slopes: Sequence[Tensor | None]) -> Pulled:
        units: dict[int, Tensor] = {}
        for index in range(top, -1, -1):
            layer_map, slope, rows = self.maps[index], slopes[index], into.pop(index)
            if slope is not None:
                units[index] = layer_map.units(rows)
                rows = layer_map.through(rows, slope.unsqueeze(1))
            if (k := layer_map.layer.residual) is not None:
                _add(into, k, rows)
            if index > 0:
                _add(into, index - 1, layer_map.pull(rows))
            elif self.factor is not None:
                return Pulled(units, rows @ self.factor)
            else:
                _add(into, -1, layer_map.pull(rows))
        return Pulled(units, into[-1])


def _add(into: dict[int, Tensor], index: int, rows: Tensor) -> None:
    into[index] = into[index] + rows if index in into else rows
