"""``net_forward``: a network's output with its epilogue, in one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vaefast.functional.rows import chunked
from vaefast.ops._autograd import Pulled
from vaefast.ops._cpp import kernel, layers_of, plain_rows, rows_at, tape_width
from vaefast.ops._derivatives import Seed, Totals, bytes_per_row, network_gradients
from vaefast.ops._inputs import check_matrix, check_network, check_precision
from vaefast.ops._register import lazy, register
from vaefast.reference.net_forward import net_forward as reference
from vaefast.runtime import backends, threads
from vaefast.runtime.tiles import check_tile
from vaefast.types import Network

__all__ = ["net_forward", "tape_bytes", "with_tape"]


class Call(NamedTuple):
    z: Tensor
    net: Network
    keep: bool
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
    how = check_precision(precision), check_tile(tile)
    return _op(Call(z, net, _keeps(z, net), *how, backend))[0]


def with_tape(z: Tensor, net: Network) -> tuple[Tensor, Tensor | None]:
    """The output, and what :func:`vaefast.ops.net_vjp.pulled` passes back along in place of a
    forward pass of its own: for one backend to read, None from those that keep none.
    """
    how = check_precision("ieee"), check_tile(None)
    return _op(Call(z, net, True, *how, None))


def tape_bytes(net: Network) -> int:
    """Bytes of a row of what :func:`with_tape` keeps, where the best backend is used."""
    first = net.weights[0]
    if backends.resolve("net_forward", None, first, net.layers) != "cpp":
        return 0
    return tape_width(net) * first.element_size()


def _keeps(z: Tensor, net: Network) -> bool:
    """Whether a derivative in z alone is asked for: then the layers' slopes are kept for it."""
    if not (z.requires_grad and torch.is_grad_enabled()):
        return False
    return not any(t is not None and t.requires_grad for t in (*net.weights, *net.biases))


def _cpp(call: Call) -> tuple[Tensor, Tensor | None]:
    z, net = call.z, call.net
    layers, _alive = layers_of(*net)
    out = z.new_empty((len(z), net.out_features))
    width = tape_width(net) if call.keep else 0
    tape = z.new_empty((len(z), width)) if width else None
    (rows,) = plain_rows(z)
    run = kernel("net_forward", z.dtype)
    run(rows_at(out), rows_at(tape), rows_at(rows), len(z), layers, threads.count())
    return out, tape


def _without_tape(run: Callable[[Call], Tensor]) -> Callable[[Call], tuple[Tensor, None]]:
    return lambda call: (run(call), None)


def _fake(call: Call) -> tuple[Tensor, Tensor]:
    rows, width = call.z.shape[0], 0
    if call.keep and call.backend == "cpp":
        width = tape_width(call.net)
    tape = call.z.new_empty((rows, width) if width else 0)
    return call.z.new_empty((rows, call.net.out_features)), tape


def _pull(pulled: Pulled) -> dict[str, Any]:
    upstream, tape = pulled.upstream[0], pulled.second
    assert upstream is not None
    assert tape is not None
    (z, net, _, *how), backend = pulled.call[:-1], pulled.call.backend
    if not pulled.needs("weights", "biases") and backends.has("net_vjp", backend):
        op, u = torch.ops.vaefast.net_vjp.default, upstream.contiguous().unsqueeze(1)
        kept = tape if tape.shape[-1] else None
        return {"z": op(z, u, *net, True, kept, *how, backend)[2][:, 0]}
    totals = Totals(net)

    def run(rows: slice) -> tuple[Tensor, ...]:
        return (network_gradients(z[rows], net, lambda *_: Seed(upstream[rows]), totals),)

    (into_z,) = chunked(run, len(z), bytes_per_row(net, z))
    return {"z": into_z, "weights": totals.weights, "biases": totals.biases}


def _push(call: Call, tangent: Tensor, results: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    v = tangent.contiguous().unsqueeze(1)
    layers, how = call.net, call[3:-1]
    backend = backends.resolve("net_jvp", call.backend, call.z, layers.layers)
    products = torch.ops.vaefast.net_jvp.default(call.z, v, *layers, True, *how, backend)[2]
    return (products[:, 0],)


_op = register(
    Call,
    returns=tuple[Tensor, Tensor],
    fake=_fake,
    reference=_without_tape(reference),
    cpp=_cpp,
    triton=_without_tape(lazy("net_forward")),
    pull=_pull,
    derived=("z", "net"),
    second=True,
    push=_push,
)
