"""``net_vjp``: K vectors times a network's Jacobian, beside one primal pass."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vaefast.ops._cpp import run_probes, tape_width
from vaefast.ops._inputs import (
    check_matrix,
    check_network,
    check_precision,
    check_probes,
)
from vaefast.ops._register import lazy, register
from vaefast.reference.net_vjp import net_vjp as reference
from vaefast.runtime.tiles import check_tile
from vaefast.types import Network, out_features

__all__ = ["net_vjp", "pulled"]


class Call(NamedTuple):
    x: Tensor
    u: Tensor
    net: Network
    full: bool
    tape: Tensor | None
    precision: str
    tile: int
    backend: str | None


def net_vjp(
    x: Tensor,
    u: Tensor,
    net: Network,
    *,
    full: bool = False,
    precision: str = "ieee",
    tile: int | None = None,
    backend: str | None = None,
) -> tuple[Tensor, ...]:
    """Pull K cotangents back through a network: y = net(x) and ‖J(x)ᵀ u_k‖².

    Equivalent to, for each k, with ``products`` stacked along dimension 1::

        y, pull = torch.func.vjp(network, x)
        product = pull(u[k].expand_as(y))[0]
        sq = product.square().sum(1)

    With the d unit vectors for u the products are the rows of J, and sq sums to ‖J‖_F². NaN or
    infinity in a row of x or in its probes makes that row of every result NaN.

    Args:
        x: inputs [B, D].
        u: cotangents, [K, d] shared by all inputs or [B, K, d], in x's dtype.
        net: the network, D to d.
        full: also return the products.
        precision, tile, backend: as for every op, see :mod:`vaefast.ops`.

    Returns:
        y [B, d] and sq [B, K] float64; with ``full`` also the products Jᵀu_k [B, K, D].

    Raises:
        TypeError: not tensors, or dtypes that differ or are not floating.
        ValueError: shapes, devices or activations that do not fit together.
        RuntimeError: an input requires grad; the backend asked for by name cannot run here.

    Source: mathematics.md §9.
    """
    check_matrix(x, "x", "[B, D]")
    check_network(net, x, "x")
    how = check_precision(precision), check_tile(tile)
    check_probes(u, "u", x, out_features(net))
    y, sq, products = _op(Call(x, u, net, full, None, *how, backend))
    return (y, sq, products) if full else (y, sq)


def pulled(x: Tensor, u: Tensor, net: Network, tape: Tensor | None) -> Tensor:
    """Jᵀu [B, D] of one cotangent per input [B, d], after ``net_forward.with_tape`` of x.

    Equivalent to, to the bit::

        net_vjp(x, u[:, None], net, full=True)[2][:, 0]

    The backend whose tape it is passes back alone; others pass forward again.
    """
    how = check_precision("ieee"), check_tile(None)
    return _op(Call(x, u.unsqueeze(1), net, True, tape, *how, None))[2][:, 0]


def _cpp(call: Call) -> tuple[Tensor, Tensor, Tensor]:
    x, tape = call.x, call.tape
    if tape is not None:
        _check_tape(tape, call)
    return run_probes("net_vjp", x, call.u, x.shape[1], call.net, call.full, tape)


def _triton(call: Call) -> tuple[Tensor, Tensor, Tensor]:
    y, sq, products = _in_triton(call)
    return (
        y if call.tape is None else y.new_empty((len(y), 0)),
        sq,
        products,
    )  # who has a tape has y


def _check_tape(tape: Tensor, call: Call) -> None:
    rows, width, K = len(call.x), tape_width(call.net), call.u.shape[-2]
    if tape.shape != (rows, width) or K != 1 or not call.full:
        raise ValueError(
            f"tape must be [{rows}, {width}] of net_forward at x, beside one cotangent per input "
            f"and full=True, got {list(tape.shape)}, {K} and full={call.full}; pass tape=None"
        )


def _fake(call: Call) -> tuple[Tensor, Tensor, Tensor]:
    x, B, K = call.x, call.x.shape[0], call.u.shape[-2]
    sq = x.new_empty((B, K), dtype=torch.float64)
    products = x.new_empty((B, K if call.full else 0, call.x.shape[1]))
    return x.new_empty((B, out_features(call.net) if call.tape is None else 0)), sq, products


_in_triton = lazy("net_vjp")
_op = register(
    Call,
    returns=tuple[Tensor, Tensor, Tensor],
    fake=_fake,
    reference=reference,
    cpp=_cpp,
    triton=_triton,
    probes=True,
)
