"""``net_jvp``: a network's Jacobian times K vectors, beside one primal pass."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vaefast.ops._cpp import run_probes
from vaefast.ops._inputs import (
    check_matrix,
    check_network,
    check_precision,
    check_probes,
)
from vaefast.ops._register import lazy, register
from vaefast.reference.net_jvp import net_jvp as reference
from vaefast.runtime.tiles import check_tile
from vaefast.types import Network, in_features

__all__ = ["net_jvp"]


class Call(NamedTuple):
    x: Tensor
    v: Tensor
    net: Network
    full: bool
    precision: str
    tile: int
    backend: str | None


def net_jvp(
    x: Tensor,
    v: Tensor,
    net: Network,
    *,
    full: bool = False,
    precision: str = "ieee",
    tile: int | None = None,
    backend: str | None = None,
) -> tuple[Tensor, ...]:
    """Push K tangents through a network: y = net(x) and ‖J(x) v_k‖².

    Equivalent to, for each k, with ``products`` stacked along dimension 1::

        y, product = torch.func.jvp(network, (x,), (v[k].expand_as(x),))
        sq = product.square().sum(1)

    With v ~ N(0, I) the mean of sq over k estimates ‖J‖_F² (Hutchinson). NaN or infinity in a
    row of x or in its probes makes that row of every result NaN.

    Args:
        x: inputs [B, D].
        v: tangents, [K, D] shared by all inputs or [B, K, D], in x's dtype.
        net: the network, D to d.
        full: also return the products.
        precision, tile, backend: as for every op, see :mod:`vaefast.ops`.

    Returns:
        y [B, d] and sq [B, K] float64; with ``full`` also the products J v_k [B, K, d].

    Raises:
        TypeError: not tensors, or dtypes that differ or are not floating.
        ValueError: shapes, devices or activations that do not fit together.
        RuntimeError: an input requires grad; the backend asked for by name cannot run here.

    Source: Hutchinson 1990; mathematics.md §9.
    """
    check_matrix(x, "x", "[B, D]")
    check_network(net, x, "x")
    how = check_precision(precision), check_tile(tile)
    check_probes(v, "v", x, in_features(net))
    y, sq, products = _op(Call(x, v, net, full, *how, backend))
    return (y, sq, products) if full else (y, sq)


def _cpp(call: Call) -> tuple[Tensor, Tensor, Tensor]:
    return run_probes("net_jvp", call.x, call.v, call.net.out_features, call.net, call.full)


def _fake(call: Call) -> tuple[Tensor, Tensor, Tensor]:
    x, B, K = call.x, call.x.shape[0], call.v.shape[-2]
    sq = x.new_empty((B, K), dtype=torch.float64)
    products = x.new_empty((B, K if call.full else 0, call.net.out_features))
    return x.new_empty((B, call.net.out_features)), sq, products


_op = register(
    Call,
    returns=tuple[Tensor, Tensor, Tensor],
    fake=_fake,
    reference=reference,
    cpp=_cpp,
    triton=lazy("net_jvp"),
    probes=True,
)
