"""``net_jacobian_gram``: the exact (whitened) Gram matrix of a network's Jacobian."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from vaefast.ops._cpp import kernel, layers_of, plain_rows, rows_at
from vaefast.ops._inputs import (
    check_like,
    check_matrix,
    check_network,
    check_precision,
)
from vaefast.ops._register import lazy, register
from vaefast.reference.net_jacobian_gram import net_jacobian_gram as reference
from vaefast.runtime import threads
from vaefast.runtime.tiles import check_tile
from vaefast.types import Network, out_features

__all__ = ["net_jacobian_gram"]


class Call(NamedTuple):
    x: Tensor
    net: Network
    inv_std: Tensor | None
    precision: str
    tile: int
    backend: str | None


def net_jacobian_gram(
    x: Tensor,
    net: Network,
    *,
    inv_std: Tensor | None = None,
    precision: str = "ieee",
    tile: int | None = None,
    backend: str | None = None,
) -> Tensor:
    """The d×d matrix S J Jᵀ S of the Jacobian J = ∂net/∂x at each x, S = diag(inv_std).

    Its trace is ‖SJ‖_F², its largest eigenvalue ‖SJ‖₂². The input dimension enters once, in the
    forward pass: with F Fᵀ = W₁W₁ᵀ, once per call, and J = M W₁ it is (S M F)(S M F)ᵀ.
    Equivalent to::

        J = inv_std[:, :, None] * torch.func.vmap(torch.func.jacrev(network))(x)
        J @ J.mT

    NaN or infinity in a row of x or of ``inv_std`` makes that matrix NaN.

    Args:
        x: inputs [B, D].
        net: the network, D to d.
        inv_std: what scales the outputs, 1/σ(x) to whiten [B, d]; None for ones.
        precision, tile, backend: as for every op, see :mod:`vaefast.ops`.

    Returns:
        [B, d, d] in x's dtype, symmetric and positive semidefinite to round-off.

    Raises:
        TypeError: not tensors, or dtypes that differ or are not floating.
        ValueError: shapes, devices or activations that do not fit together.
        RuntimeError: an input requires grad; the backend asked for by name cannot run here.

    Source: mathematics.md §9.
    """
    check_matrix(x, "x", "[B, D]")
    check_network(net, x, "x")
    how = check_precision(precision), check_tile(tile)
    if inv_std is not None:
        check_like(inv_std, "inv_std", x, "x", [len(x), out_features(net)])
    return _op(Call(x, net, inv_std, *how, backend))


def _cpp(call: Call) -> Tensor:
    x, net = call.x, call.net
    layers, _alive = layers_of(*net)
    out = x.new_empty((len(x), net.out_features, net.out_features))
    if not out.numel():
        return out
    rows, scales = plain_rows(x, call.inv_std)
    kernel("net_jacobian_gram", x.dtype)(
        out.data_ptr(),
        rows_at(rows),
        rows_at(scales),
        len(x),
        layers,
        threads.count(),
    )
    return out


def _fake(call: Call) -> Tensor:
    d = call.net.out_features
    return call.x.new_empty((call.x.shape[0], d, d))


_op = register(
    Call,
    returns=Tensor,
    fake=_fake,
    reference=reference,
    cpp=_cpp,
    triton=lazy("net_jacobian_gram"),
)
