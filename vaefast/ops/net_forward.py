"""``net_forward``: a network's output with its epilogue, in one call."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from vaefast.functional.rows import chunked
from vaefast.ops._autograd import Pulled
from vaefast.ops._cpp import kernel, layers_of, plain_rows, rows_at
from vaefast.ops._derivatives import Seed, Totals, bytes_per_row, network_gradients
from vaefast.ops._inputs import check_matrix, check_network, check_precision
from vaefast.ops._register import lazy, register
from vaefast.reference.net_forward import net_forward as reference
from vaefast.runtime import backends, threads
from vaefast.runtime.tiles import check_tile
from vaefast.types import Network

__all__ = ["net_forward"]


class Call(NamedTuple):
    z: Tensor
    net: Network
    precision: str
    tile: int
    backend: str | None


def net_forward(
    z: Tensor,
    net: Network,
    *,
    precision: str = "ieee",
    tile: int | None = None,
    backend: str | None = None,
) -> Tensor:
    """Evaluate a network, every layer and the epilogue.

        h ← φ_l(W_l h + b_l),  l = 1 … layers

    Equivalent to, for two layers with ``activations="tanh,sigmoid"``::

        (F.linear(z, W1, b1).tanh() @ W2.T + b2).sigmoid()

    Differentiable once in z, weights and biases; any number of times with
    ``backend="reference"``. NaN or infinity in a row of z makes that row of the result NaN.

    Args:
        z: inputs [N, d].
        net: the network, d to D, in z's dtype and on its device.
        precision, tile, backend: as for every op, see :mod:`vaefast.ops`.

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
    return _op(Call(z, net, check_precision(precision), check_tile(tile), backend))


def _cpp(call: Call) -> Tensor:
    z, net = call.z, call.net
    layers, _alive = layers_of(*net)
    out = z.new_empty((len(z), net.out_features))
    (rows,) = plain_rows(z)
    run = kernel("net_forward", z.dtype)
    run(rows_at(out), rows_at(rows), len(z), layers, threads.count())
    return out


def _fake(call: Call) -> Tensor:
    return call.z.new_empty((call.z.shape[0], call.net.out_features))


def _pull(pulled: Pulled) -> dict[str, Any]:
    (upstream,) = pulled.upstream
    assert upstream is not None
    (z, net, *how), backend = pulled.call[:-1], pulled.call.backend
    if not pulled.needs("weights", "biases") and backends.has("net_vjp", backend):
        op, u = torch.ops.vaefast.net_vjp.default, upstream.contiguous().unsqueeze(1)
        return {"z": op(z, u, *net, True, *how, backend)[2][:, 0]}
    totals = Totals(net)

    def run(rows: slice) -> tuple[Tensor, ...]:
        return (network_gradients(z[rows], net, lambda *_: Seed(upstream[rows]), totals),)

    (into_z,) = chunked(run, len(z), bytes_per_row(net, z))
    return {"z": into_z, "weights": totals.weights, "biases": totals.biases}


def _push(call: Call, tangent: Tensor, results: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    v = tangent.contiguous().unsqueeze(1)
    layers, how = call.net, call[2:-1]
    backend = backends.resolve("net_jvp", call.backend, call.z, layers.layers)
    products = torch.ops.vaefast.net_jvp.default(call.z, v, *layers, True, *how, backend)[2]
    return (products[:, 0],)


_op = register(
    Call,
    returns=Tensor,
    fake=_fake,
    reference=reference,
    cpp=_cpp,
    triton=lazy("net_forward"),
    pull=_pull,
    derived=("z", "net"),
    push=_push,
)
