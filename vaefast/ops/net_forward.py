"""``net_forward``: an MLP's output with its epilogue, in one call."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vaefast.functional.rows import chunked
from vaefast.ops._autograd import (
    Pulled,
    differentiable_once,
    reference_named,
    tensors_of,
    wants_grad,
    with_biases,
)
from vaefast.ops._cpp import kernel, layers_of, plain_rows, rows_at
from vaefast.ops._derivatives import Seed, Totals, bytes_per_row, network_gradients
from vaefast.ops._inputs import check_matrix, check_network, check_precision
from vaefast.ops._register import lazy, register
from vaefast.reference.net_forward import net_forward as reference
from vaefast.runtime import backends
from vaefast.runtime.tiles import check_tile
from vaefast.types import Network

__all__ = ["net_forward"]


def net_forward(
    z: Tensor,
    net: Network,
    *,
    precision: str = "ieee",
    tile: int | None = None,
    backend: str | None = None,
) -> Tensor:
    """Evaluate an MLP, every layer and the epilogue.

        h ← φ_l(W_l h + b_l),  l = 1 … layers

    Equivalent to, for two layers with ``activations="tanh,sigmoid"``::

        (F.linear(z, W1, b1).tanh() @ W2.T + b2).sigmoid()

    Differentiable once in z, weights and biases; any number of times with
    ``backend="reference"``. NaN or infinity in a row of z makes that row of the result NaN.

    Args:
        z: inputs [N, d].
        net: the network, d to D, in z's dtype and on its device.
        precision: ``"ieee"``, ``"tf32"`` or ``"bf16"``: the lowest that a backend may use inside
            matrix products; the reference always computes in z's dtype.
        tile: rows that one GPU program works on, 16, 32, 64 or 128; ``None`` chooses it from the
            batch. It pins the bits of a result on CUDA; the CPU has no tiles and ignores it.
        backend: ``"reference"``, ``"cpp"`` or ``"triton"``; ``None`` chooses.

    Returns:
        [N, D] in z's dtype.

    Raises:
        TypeError: not tensors, or dtypes that differ or are not floating.
        ValueError: shapes, devices or activations that do not fit together.
        RuntimeError: the backend asked for by name cannot run here.

    Source: mathematics.md §11; derivatives at the kinks of relu and leaky relu are those from the
    left.
    """
    check_matrix(z, "z", "[N, d]")
    check_network(net, z, "z")
    how = check_precision(precision), check_tile(tile)
    chosen = backends.resolve("net_forward", backend, z)
    if reference_named(backend, z, *tensors_of(net)):
        return reference(z, net)
    network = with_biases(net) if wants_grad(z, *tensors_of(net)) else net
    return _op(z, *network, *how, chosen)


def _run_reference(z, weights, biases, layers, *_) -> Tensor:
    return reference(z, Network(weights, biases, layers))


def _run_cpp(z, weights, biases, layers, packed, *_) -> Tensor:
    layers, _alive = layers_of(weights, biases, layers, packed)
    out = z.new_empty((len(z), weights[-1].shape[0]))
    (rows,) = plain_rows(z)
    run = kernel("net_forward", z.dtype)
    run(rows_at(out), rows_at(rows), len(z), layers, torch.get_num_threads())
    return out


def _fake(z, weights, *_) -> Tensor:
    return z.new_empty((z.shape[0], weights[-1].shape[0]))


_op = register(
    "net_forward",
    "(Tensor z, Tensor[] weights, Tensor?[] biases, str[] layers, Tensor? packed,"
    " str precision, int tile, str backend) -> Tensor",
    fake=_fake,
    reference=_run_reference,
    cpp=_run_cpp,
    triton=lazy("vaefast.kernels.net_forward", "net_forward"),
)


def _pull(pulled: Pulled) -> list[Any]:
    z, weights, biases, layers, *rest = pulled.arguments
    packed, *how = rest
    (upstream,) = pulled.upstream
    assert upstream is not None
    in_z_alone = not any(pulled.needed[1]) and not any(pulled.needed[2])
    if in_z_alone and backends.has("net_vjp", how[-1]):
        op, u = torch.ops.vaefast.net_vjp.default, upstream.contiguous().unsqueeze(1)
        return [op(z, u, weights, biases, layers, packed, True, *how)[2][:, 0]]
    net = Network(weights, biases, layers)
    totals = Totals(net)

    def run(rows: slice) -> tuple[Tensor, ...]:
        return (network_gradients(z[rows], net, lambda *_: Seed(upstream[rows]), totals),)

    (into_z,) = chunked(run, len(z), bytes_per_row(net, z))
    return [into_z, totals.weights, totals.biases]


differentiable_once("net_forward", _pull)
