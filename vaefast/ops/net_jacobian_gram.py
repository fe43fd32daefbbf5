"""``net_jacobian_gram``: the exact (whitened) Gram matrix of an MLP's Jacobian."""

from __future__ import annotations

import torch
from torch import Tensor

from vaefast.ops._autograd import tensors_of, through_reference
from vaefast.ops._cpp import kernel, layers_of, plain_rows, rows_at
from vaefast.ops._inputs import (
    check_like,
    check_matrix,
    check_network,
    check_precision,
)
from vaefast.ops._register import lazy, register
from vaefast.reference.net_jacobian_gram import net_jacobian_gram as reference
from vaefast.runtime import backends
from vaefast.runtime.tiles import check_tile
from vaefast.types import Network

__all__ = ["net_jacobian_gram"]


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

    Its trace is ‖SJ‖_F², its largest eigenvalue ‖SJ‖₂². The input dimension is met once, in the
    forward pass: with F Fᵀ = W₁W₁ᵀ, once per call, and J = M W₁ it is (S M F)(S M F)ᵀ.
    Equivalent to::

        J = inv_std[:, :, None] * torch.func.vmap(torch.func.jacrev(network))(x)
        J @ J.mT

    NaN or infinity in a row of x or of ``inv_std`` makes that matrix NaN.

    Args:
        x: inputs [B, D].
        net: the network, D to d.
        inv_std: what scales the outputs, 1/σ(x) to whiten [B, d]; None for ones.
        precision: ``"ieee"``, ``"tf32"`` or ``"bf16"``: the lowest that a backend may use inside
            matrix products; the reference always computes in x's dtype.
        tile: rows that one GPU program works on, 16, 32, 64 or 128; ``None`` chooses it from the
            batch. It pins the bits of a result on CUDA; the CPU has no tiles and ignores it.
        backend: ``"reference"``, ``"cpp"`` or ``"triton"``; ``None`` chooses.

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
        check_like(inv_std, "inv_std", x, "x", [len(x), net.out_features])
    chosen = backends.resolve("net_jacobian_gram", backend, x)
    if through_reference("net_jacobian_gram", backend, x, inv_std, *tensors_of(net)):
        return reference(x, net, inv_std=inv_std)
    return _op(x, *net, inv_std, *how, chosen)


def _run_reference(x, weights, biases, layers, packed, inv_std, *_) -> Tensor:
    return reference(x, Network(weights, biases, layers), inv_std=inv_std)


def _run_cpp(x, weights, biases, layers, packed, inv_std, *_) -> Tensor:
    layers, _alive = layers_of(weights, biases, layers, packed)
    d = weights[-1].shape[0]
    out = x.new_empty((len(x), d, d))
    if not out.numel():
        return out
    rows, scales = plain_rows(x, inv_std)
    kernel("net_jacobian_gram", x.dtype)(
        out.data_ptr(),
        rows_at(rows),
        rows_at(scales),
        len(x),
        layers,
        torch.get_num_threads(),
    )
    return out


def _fake(x, weights, *_) -> Tensor:
    d = weights[-1].shape[0]
    return x.new_empty((x.shape[0], d, d))


_op = register(
    "net_jacobian_gram",
    "(Tensor x, Tensor[] weights, Tensor?[] biases, str[] layers, Tensor? packed,"
    " Tensor? inv_std, str precision, int tile, str backend) -> Tensor",
    fake=_fake,
    reference=_run_reference,
    cpp=_run_cpp,
    triton=lazy("vaefast.kernels.net_jacobian_gram", "net_jacobian_gram"),
)
