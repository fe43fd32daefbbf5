"""``net_jvp``: an MLP's Jacobian times K vectors, beside one primal pass."""

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
from vaefast.reference.net_jvp import net_jvp as reference
from vaefast.runtime import backends
from vaefast.runtime.tiles import check_tile
from vaefast.types import Network

__all__ = ["net_jvp"]


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
    """Push K tangents through an MLP: y = net(x) and ‖J(x) v_k‖².

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
        precision: ``"ieee"``, ``"tf32"`` or ``"bf16"``: the lowest that a backend may use inside
            matrix products; the reference always computes in x's dtype.
        tile: rows that one GPU program works on, 16, 32, 64 or 128; ``None`` chooses it from the
            batch. It pins the bits of a result on CUDA; the CPU has no tiles and ignores it.
        backend: ``"reference"``, ``"cpp"`` or ``"triton"``; ``None`` chooses.

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
    check_probes(v, "v", x, net.in_features)
    chosen = backends.resolve("net_jvp", backend, x)
    if through_reference("net_jvp", backend, x, v, *tensors_of(net)):
        return reference(x, v, net, full=full)
    return _op(x, v, *net, full, *how, chosen)[: 2 + full]


def _run_reference(
    x, v, weights, biases, layers, packed, full, *_
) -> tuple[Tensor, Tensor, Tensor]:
    y, sq, *products = reference(x, v, Network(weights, biases, layers), full=full)
    return y, sq, products[0] if full else y.new_empty((len(y), 0, y.shape[1]))


def _run_cpp(x, v, weights, biases, layers, packed, full, *_) -> tuple[Tensor, Tensor, Tensor]:
    return run_probes(
        "net_jvp", x, v, weights[-1].shape[0], (weights, biases, layers, packed), full
    )


def _fake(x, v, weights, biases, layers, packed, full, *_) -> tuple[Tensor, Tensor, Tensor]:
    B, K, d = x.shape[0], v.shape[-2], weights[-1].shape[0]
    sq = x.new_empty((B, K), dtype=torch.float64)
    return x.new_empty((B, d)), sq, x.new_empty((B, K if full else 0, d))


_op = register(
    "net_jvp",
    "(Tensor x, Tensor v, Tensor[] weights, Tensor?[] biases, str[] layers, Tensor? packed,"
    " bool full, str precision, int tile, str backend) -> (Tensor, Tensor, Tensor)",
    fake=_fake,
    reference=_run_reference,
    cpp=_run_cpp,
    triton=lazy("vaefast.kernels.net_jvp", "net_jvp"),
)
