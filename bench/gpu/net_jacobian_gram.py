"""``net_jacobian_gram``: the exact whitened norm of an encoder at 10⁶ inputs, streamed.

A part of the inputs is timed, chunk by chunk, and scaled up. Ours takes the largest eigenvalue as
``vaefast.geometry.spectral_norm`` does, on a GPU by repeated squaring in float64. The peers square
too, λ ≤ (tr A^(2^k))^(1/2^k), in float32: in tf32 or bf16 it would not be an upper bound.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from vaefast import ops
from vaefast.bench.gpu import chains
from vaefast.bench.gpu.place import PRECISIONS, TOLERANCE, Place, ieee_products, net_at
from vaefast.bench.ops import _jacobian as jac
from vaefast.bench.ops import _jax as jx
from vaefast.bench.ops import _nets as nets
from vaefast.bench.ops.net_jacobian_gram import chain_flop
from vaefast.bench.runner import Benchmark, Provider
from vaefast.geometry.metric import largest_eigenvalue
from vaefast.types import Network

__all__ = ["cases"]

INPUTS = 1_000_000
OURS, THEIRS = 65536, 4096  # inputs at a time: each about the best for its memory traffic
CHUNKS = 2
SQUARINGS = 16
SECONDS = {"tf32": 1.0, "ieee": 3.0}
BY_HAND = ("by hand, Cholesky", "torch.compile by hand, Cholesky")


def cases(place: Place) -> list[tuple[str, Callable[[], Benchmark]]]:
    """About 27 MFLOP an input."""
    return [(precision, partial(case, place, precision)) for precision in PRECISIONS]


def case(place: Place, precision: str) -> Benchmark:
    shape = place.size(*chains.DECODER)
    net = nets.encoder(shape, place.device)
    ours, theirs = place.size(OURS, 6), place.size(THEIRS, 3)
    timed = CHUNKS * ours
    x = place.pixels(timed, net.in_features)
    inv_std = place.normal(timed, net.out_features, seed=1).exp_().clamp_(0.2, 5.0)
    found: dict[str, Provider] = {
        "vaefast": lambda: streamed(
            partial(our_gram, net, precision, place.backend("net_jacobian_gram")), x, inv_std, ours
        ),
    }
    few = x[:theirs].clone(), inv_std[:theirs].clone()
    found |= peers(place, *few, net, precision)
    check = {name: partial(compared, found, name, theirs) for name in found if name != "vaefast"}
    return Benchmark(
        op="net_jacobian_gram",
        case=(
            f"{shape.reversed()} {INPUTS:,} inputs whitened norm {precision}, ours scaled up from"
            f" {timed:,}, theirs from {theirs:,} {place.device}"
        ),
        providers=found,
        checks=check,
        scale={**dict.fromkeys(found, INPUTS / theirs), "vaefast": INPUTS / timed},
        bytes=INPUTS * 4 * (net.in_features + net.out_features + 1),
        flop=INPUTS * (nets.flop(net, 1) + chain_flop(net)),
        precision=precision,
        limit=precision,
        tolerance=TOLERANCE[precision],
        at_least=5.0,
        at_least_of=dict.fromkeys(BY_HAND, 1.0),
        seconds_at_most=SECONDS.get(precision, float("nan")),
    )


def our_gram(
    net: Network, precision: str, backend: str | None, x: Tensor, inv_std: Tensor
) -> Tensor:
    options = {"precision": precision, "backend": backend}
    return ops.net_jacobian_gram(x, net, inv_std=inv_std, **options)


def streamed(gram: Callable, x: Tensor, inv_std: Tensor, chunk: int) -> Tensor:
    """Norms [B] float64, a chunk of matrices at a time."""
    parts = zip(x.split(chunk), inv_std.split(chunk))
    return torch.cat([largest_eigenvalue(gram(*part).double()).sqrt() for part in parts])


def norm(gram: Tensor) -> Tensor:
    """√λ₁ of each matrix as the peers bound it, in exact arithmetic at most 7·10⁻⁵ too large."""
    log = torch.zeros(len(gram), device=gram.device, dtype=gram.dtype)
    for k in range(SQUARINGS + 1):
        trace = gram.diagonal(dim1=-2, dim2=-1).sum(-1)
        log = log + trace.log() / 2**k
        gram = gram / trace[:, None, None]
        if k < SQUARINGS:
            gram = gram @ gram
    return (0.5 * log).exp()


def jax_norm(gram):
    import jax.numpy as jnp

    log = 0.0
    for k in range(SQUARINGS + 1):
        trace = jnp.trace(gram, axis1=-2, axis2=-1)
        log = log + jnp.log(trace) / 2**k
        gram = gram / trace[:, None, None]
        gram = jnp.matmul(gram, gram, precision="highest")
    return jnp.exp(0.5 * log)


def peers(
    place: Place, x: Tensor, inv_std: Tensor, net: Network, precision: str
) -> dict[str, Provider]:
    peer = net_at(net, precision)
    first = net.weights[0].double()
    root = torch.linalg.cholesky(first @ first.T).to(peer.weights[0].dtype)  # once a model
    if len(first) > first.shape[1]:
        root = peer.weights[0]

    def by_func(x: Tensor, inv_std: Tensor) -> Tensor:
        return jac.gram_by_func(x, inv_std, peer)

    def by_hand(x: Tensor, inv_std: Tensor) -> Tensor:
        return jac.gram_by_hand(x, inv_std, peer, root)

    def bounded(gram: Callable, norm: Callable = norm) -> Provider:
        def run() -> Tensor:
            matrices = gram(x, inv_std)
            with ieee_products():
                return norm(matrices)

        return run

    def by_jax(x, inv_std, *network):
        return jax_norm(jac.gram_by_jax(x, inv_std, *network))

    func, hand, squared = (place.compiled(part) for part in (by_func, by_hand, norm))
    return {
        "vmap(jacrev)": bounded(by_func),
        "by hand, Cholesky": bounded(by_hand),
        "torch.compile of vmap(jacrev)": bounded(func, squared),
        **jx.jitted(by_jax, x, inv_std, *jx.network(peer)),
        "torch.compile by hand, Cholesky": bounded(hand, squared),
    }


def compared(found: dict[str, Provider], name: str, count: int) -> tuple[Tensor, Tensor]:
    theirs = found[name]()
    theirs = theirs if isinstance(theirs, Tensor) else torch.from_dlpack(theirs)
    return theirs, found["vaefast"]()[:count]
