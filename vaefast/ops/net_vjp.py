"""``net_vjp``: K vectors times an MLP's Jacobian, beside one primal pass."""

from __future__ import annotations

import torch
from torch import Tensor

from vaefast.ops._autograd import tensors_of, through_reference
from vaefast.ops._cpp import run_probes
from vaefast.ops._inputs import (
    check_matrix,
    check_network,
    check_precision,
    check_probes,
)
from vaefast.ops._register import lazy, register
from vaefast.reference.net_vjp import net_vjp as reference
from vaefast.runtime import backends
from vaefast.runtime.tiles import check_tile
from vaefast.types import Network

__all__ = ["net_vjp"]


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
    """Pull K cotangents back through an MLP: y = net(x) and ‖J(x)ᵀ u_k‖².

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
        precision: ``"ieee"``, ``"tf32"`` or ``"bf16"``: the lowest that a backend may use inside
            matrix products; the reference always computes in x's dtype.
        tile: rows that one GPU program works on, 16, 32, 64 or 128; ``None`` chooses it from the
            batch. It pins the bits of a result on CUDA; the CPU has no tiles and ignores it.
        backend: ``"reference"``, ``"cpp"`` or ``"triton"``; ``None`` chooses.

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
    check_probes(u, "u", x, net.out_features)
    chosen = backends.resolve("net_vjp", backend, x)
    if through_reference("net_vjp", backend, x, u, *tensors_of(net)):
        return reference(x, u, net, full=full)
    return _op(x, u, *net, full, *how, chosen)[: 2 + full]


def _run_reference(
    x, u, weights, biases, layers, packed, full, *_
) -> tuple[Tensor, Tensor, Tensor]:
    y, sq, *products = reference(x, u, Network(weights, biases, layers), full=full)
    return y, sq, products[0] if full else x.new_empty((len(x), 0, x.shape[1]))


def _run_cpp(x, u, weights, biases, layers, packed, full, *_) -> tuple[Tensor, Tensor, Tensor]:
    return run_probes("net_vjp", x, u, x.shape[1], (weights, biases, layers, packed), full)


def _fake(x, u, weights, biases, layers, packed, full, *_) -> tuple[Tensor, Tensor, Tensor]:
    B, K, d = x.shape[0], u.shape[-2], weights[-1].shape[0]
    sq = x.new_empty((B, K), dtype=torch.float64)
    return x.new_empty((B, d)), sq, x.new_empty((B, K if full else 0, x.shape[1]))


_op = register(
    "net_vjp",
    "(Tensor x, Tensor u, Tensor[] weights, Tensor?[] biases, str[] layers, Tensor? packed,"
    " bool full, str precision, int tile, str backend) -> (Tensor, Tensor, Tensor)",
    fake=_fake,
    reference=_run_reference,
    cpp=_run_cpp,
    triton=lazy("vaefast.kernels.net_vjp", "net_vjp"),
)
