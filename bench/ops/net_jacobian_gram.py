"""``net_jacobian_gram`` against torch.func's Jacobian, Grams by hand, compiled, and JAX.

On a CPU the matrices of a batch. On a GPU what they are for: the exact whitened norm of an encoder
at 10⁶ inputs, a part of them timed chunk by chunk and scaled up. Ours takes the largest eigenvalue
as ``vaefast.geometry.spectral_norm`` does, on a GPU by repeated squaring in float64. The peers
square too, λ ≤ (tr A^(2^k))^(1/2^k), in float32: in tf32 or bf16 it would not be an upper bound.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from vaefast import ops
from vaefast.bench.ops import _jacobian as jac
from vaefast.bench.ops import _jax as jx
from vaefast.bench.ops import _nets as nets
from vaefast.bench.place import Place, ieee_products, net_at
from vaefast.bench.runner import Benchmark, Case, Provider, tensor_of
from vaefast.geometry.metric import largest_eigenvalue
from vaefast.types import Network

__all__ = ["cases"]

B = 256  # inputs, on a CPU
CASES = (  # decoder widths, activation, asked of the best Jacobian, asked of Grams by hand
    ((32, 512, 512, 784), "tanh", 1.5, 1.15),
    ((32, 512, 512, 784), "relu", 1.5, 1.15),
    ((32, 512, 512, 3072), "tanh", 2.5, 1.0),
    ((17, 100, 333, 300), "relu", 1.0, 1.0),
    ((8, 64, 3072), "silu", 1.0, 1.0),
)
INPUTS = 1_000_000  # on a GPU
OURS, THEIRS = 65536, 4096  # inputs at a time: each about the best for its memory traffic
CHUNKS = 2
SQUARINGS = 16
SECONDS = {"tf32": 1.0, "ieee": 3.0}
BY_HAND = ("by hand, Cholesky", "torch.compile by hand, Cholesky")


def cases(place: Place) -> list[Case]:
    """Of the encoder 784-512-512-32 about 27 MFLOP an input."""
    if not place.on_cpu:
        return [(precision, partial(norms, place, precision)) for precision in place.precisions]
    found = []
    for widths, activation, *asked in CASES:
        shape = nets.Shape(widths, activation)
        found.append((f"{shape.reversed()} B={B}", partial(grams, place, shape, *asked)))
    return found


def inputs(place: Place, net: Network, count: int) -> tuple[Tensor, Tensor]:
    """Images, and inverse deviations that whiten."""
    inv_std = place.normal(count, net.out_features, seed=1).exp_().clamp_(0.2, 5.0)
    return place.pixels(count, net.in_features), inv_std


def grams(place: Place, shape: nets.Shape, of_jacobian: float, of_gram: float) -> Benchmark:
    """Each provider returns the matrices [B, d, d]."""
    net = nets.encoder(shape, place.device)
    x, inv_std = inputs(place, net, B)
    compiled = place.compiled(jac.gram_by_func)
    by_hand = {
        name: partial(jac.gram_by_hand, x, inv_std, net, first)
        for name, first in grams_by_hand(net).items()
    }
    return Benchmark(
        op="net_jacobian_gram",
        case=f"{shape.reversed()} B={B} whitened {place.named()}",
        providers={
            "vaefast": lambda: ops.net_jacobian_gram(x, net, inv_std=inv_std),
            **nets.ceiling(place, lambda: products(net)),
            "vmap(jacrev)": lambda: jac.gram_by_func(x, inv_std, net),
            "torch.compile of vmap(jacrev)": lambda: compiled(x, inv_std, net),
            **by_hand,
            **jx.jitted(jac.gram_by_jax, x, inv_std, *jx.network(net)),
        },
        bytes=nets.weight_bytes(net) + 4 * B * (net.in_features + net.out_features**2),
        flop=nets.flop(net, B) + B * chain_flop(net),
        at_least=of_jacobian,
        at_least_of=dict.fromkeys(by_hand, of_gram),
        **place.held_to("ieee"),
    )


def grams_by_hand(net: Network) -> dict[str, str]:
    """Name to what stands for the first layer; its Cholesky factor where it has one."""
    H, D = net.weights[0].shape
    factor = {"by hand, Cholesky": "cholesky"} if H < D else {"by hand, W1": "W1"}
    return {"by hand, W1 W1ᵀ": "G", **factor}


def products(net: Network) -> list[nets.Product]:
    d, (H, D) = net.out_features, net.weights[0].shape
    inner = [nets.product(B * d, weight, back=True) for weight in net.weights[-2:0:-1]]
    last = nets.product(B * d, net.weights[0].new_ones(H, min(H, D)), back=True)
    return [*nets.forward_products(net, B), *inner, last]


def chain_flop(net: Network) -> int:
    """d pulled to the first layer, times the triangular factor, times its own transpose."""
    d, (H, D) = net.out_features, net.weights[0].shape
    inner = sum(weight.numel() for weight in net.weights[1:-1])
    return 2 * d * inner + d * H * min(H, D) + 2 * d * d * min(H, D)


def norms(place: Place, precision: str) -> Benchmark:
    """Each provider returns the norms of the inputs that it is timed on."""
    (shape,) = nets.shapes(place)
    net = nets.encoder(shape, place.device)
    ours, theirs = place.size(OURS, 6), place.size(THEIRS, 3)
    timed = CHUNKS * ours
    x, inv_std = inputs(place, net, timed)
    gram = partial(our_gram, net, precision, place.backend("net_jacobian_gram"))
    found: dict[str, Provider] = {"vaefast": lambda: streamed(gram, x, inv_std, ours)}
    found |= peers(place, x[:theirs].clone(), inv_std[:theirs].clone(), net, precision)
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
        at_least=5.0,
        at_least_of=dict.fromkeys(BY_HAND, 1.0),
        seconds_at_most=SECONDS.get(precision, float("nan")),
        **place.held_to(precision),
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
    return tensor_of(found[name]()), found["vaefast"]()[:count]
