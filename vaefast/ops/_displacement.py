"""The affine form of ``net_displacement_bound`` by the C++ kernels, for MLPs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from vaefast.functional.activations import parse
from vaefast.functional.displacement_intervals import slack
from vaefast.functional.displacement_kernel import Affine
from vaefast.functional.displacement_walk import Walk
from vaefast.functional.eigenvalues import eigenvalue
from vaefast.functional.network import Tape
from vaefast.functional.secants import Curve
from vaefast.ops._cpp import kernel, layers_of, plain_rows, rows_at
from vaefast.runtime import threads
from vaefast.types import Network

__all__ = ["CppKernel", "refused"]

ROOM = 8.0  # for elementary functions that err by a few units in the last place more


def refused(backend: str, layers: Sequence[str]) -> str:
    """Why the backend takes no network of these layers, "" where it does."""
    other = [
        layer
        for layer in layers
        if not layer.startswith("linear ") or " +" in layer or "maxmin" in layer
    ]
    if backend == "reference" or not other:
        return ""
    return (
        f'net_displacement_bound has no "{backend}" kernel for the layer {other[0]!r}; '
        "batched matrix products of the library do its work"
    )


class CppKernel:
    """The kernels at one batch of centres: a row has the same bits whatever stands beside it."""

    def passed(self, x: Tensor, net: Network) -> Tape:
        """The pass at the centres, and what rounding leaves of the first layer's."""
        widths = [len(w) for w in net.weights]
        self._net = net._replace(weights=[w.contiguous() for w in net.weights], packed=None)
        self._pre = x.new_empty(len(x), sum(widths))
        self._rounding = x.new_empty(len(x), widths[0])
        layers, _alive = layers_of(*self._net)
        (rows,) = plain_rows(x)
        if len(x):
            kernel("displacement_centres", torch.float64)(
                (rows_at(self._pre), rows_at(self._rounding)),
                rows_at(rows),
                len(x),
                layers,
                threads.count(),
            )
        pre = list(self._pre.split(widths, 1))
        return Tape(pre, [a.value(t) for a, t in zip(parse(net.activations), pre)])

    def affine(
        self,
        walk: Walk,
        radius: Tensor,
        scale: Tensor | None,
        groups: int,
        rows: slice | Tensor,
        ends: bool,
    ) -> Affine:
        """See :class:`vaefast.functional.displacement_kernel.Kernel`."""
        curves = [layer_map.curve for layer_map in walk.maps]
        n, m = len(radius), walk.maps[-1].layer.out_features
        own = m // groups
        gram = radius.new_empty(n, groups, own, own)
        rest, rounding = radius.new_empty(2, n, groups).unbind(0)
        units = [
            layer_map.layer.out_features // (2 if layer_map.pairs else 1)
            for layer_map in walk.maps
            if layer_map.curve is not None
        ]
        low, high = radius.new_empty(2, n, sum(units)).unbind(0) if ends else (None, None)
        first, factor = walk.maps[0], walk.factor
        assert factor is not None
        factor, radius, norms = factor.contiguous(), radius.contiguous(), walk.first_norms
        unit_norms = first.unit_rows(factor).norm(dim=1)
        triangular = first.weight.shape[1] > first.weight.shape[0]  # else it is W₁ itself
        pre, first_rounding, scale = plain_rows(self._pre[rows], self._rounding[rows], scale)
        layers, _alive = layers_of(*self._net)
        if n:
            kernel("net_displacement_bound", torch.float64)(
                (gram.data_ptr(), rest.data_ptr(), rounding.data_ptr()),
                (rows_at(low), rows_at(high)),
                (rows_at(pre), rows_at(first_rounding)),
                radius.data_ptr(),
                rows_at(scale),
                (n, groups),
                (rows_at(factor), factor.shape[1], triangular),
                (norms.data_ptr(), unit_norms.data_ptr()),
                slack(walk),
                [_facts(one) for one in curves],
                layers,
                threads.count(),
            )
        bound = radius[:, None] * eigenvalue(gram).clamp(min=0.0).sqrt() + rest
        if low is None or high is None:
            return Affine(bound, rounding, None)
        over = ~bound.isfinite().all(1)
        low[over], high[over] = torch.nan, torch.nan
        return Affine(bound, rounding, list(zip(low.split(units, 1), high.split(units, 1))))


def _facts(curve: Curve | None) -> tuple[float, float, float, float, float, float]:
    """As csrc/calls.h has them."""
    if curve is None:
        return (1.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    steepest = math.nan if curve.most is None else max(abs(curve.least), curve.most)
    turns = [point for point, _ in curve.turns] if len(curve.turns) == 2 else [0.0, 0.0]
    error = curve.error if curve.straight else ROOM * curve.error
    return (curve.least, steepest, error, turns[0], turns[1], float(curve.straight))
