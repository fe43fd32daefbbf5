"""``net_jacobian_gram`` against torch.func's Jacobian, Grams by hand, compiled, and JAX."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from vaefast import ops
from vaefast.bench.cases import images
from vaefast.bench.ops import _jacobian as jac
from vaefast.bench.ops import _jax as jx
from vaefast.bench.ops import _nets as nets
from vaefast.bench.runner import Benchmark, Provider
from vaefast.types import Network

B = 256
CASES = (  # decoder widths, activation, asked of the best Jacobian, asked of Grams by hand
    ((32, 512, 512, 784), "tanh", 1.5, 1.15),
    ((32, 512, 512, 784), "relu", 1.5, 1.15),
    ((32, 512, 512, 3072), "tanh", 2.5, 1.0),
    ((17, 100, 333, 300), "relu", 1.0, 1.0),
    ((8, 64, 3072), "silu", 1.0, 1.0),
)


def benchmarks() -> Iterator[Benchmark]:
    """Whitened Gram matrices; of the encoder 784-512-512-32 about 27 MFLOP an image."""
    for widths, activation, of_jacobian, of_gram in CASES:
        shape = nets.Shape(widths, activation)
        net = nets.encoder(shape)
        x = images(B, net.in_features, device=nets.DEVICE).x
        by_hand = grams_by_hand(net)
        yield Benchmark(
            op="net_jacobian_gram",
            case=f"{shape.reversed()} B={B} whitened float32 {nets.DEVICE}",
            providers=providers(x, net, by_hand),
            bytes=nets.weight_bytes(net) + 4 * B * (net.in_features + net.out_features**2),
            flop=nets.flop(net, B) + B * chain_flop(net),
            ceiling="matrix products alone",
            at_least=of_jacobian,
            at_least_of=dict.fromkeys(by_hand, of_gram),
        )


def chain_flop(net: Network) -> int:
    """d pulled to the first layer, times the triangular factor, times its own transpose."""
    d, (H, D) = net.out_features, net.weights[0].shape
    inner = sum(weight.numel() for weight in net.weights[1:-1])
    return 2 * d * inner + d * H * min(H, D) + 2 * d * d * min(H, D)


def grams_by_hand(net: Network) -> dict[str, str]:
    """Name to what stands for the first layer; its Cholesky factor where it has one."""
    H, D = net.weights[0].shape
    factor = {"by hand, Cholesky": "cholesky"} if H < D else {"by hand, W1": "W1"}
    return {"by hand, W1 W1ᵀ": "G", **factor}


def providers(x: Tensor, net: Network, by_hand: dict[str, str]) -> dict[str, Provider]:
    """Each returns the matrices [B, d, d]."""
    d, (H, D) = net.out_features, net.weights[0].shape
    generator = torch.Generator().manual_seed(1)
    inv_std = (0.5 + torch.rand(B, d, generator=generator)).to(x)
    inner = [nets.product(B * d, weight, back=True) for weight in net.weights[-2:0:-1]]
    last = nets.product(B * d, torch.rand(H, min(H, D), device=x.device), back=True)
    compiled = nets.compiled(jac.gram_by_func)
    run = partial(jac.gram_by_hand, x, inv_std, net)
    return {
        "vaefast": lambda: ops.net_jacobian_gram(x, net, inv_std=inv_std),
        "matrix products alone": nets.alone([*nets.forward_products(net, B), *inner, last]),
        "vmap(jacrev)": lambda: jac.gram_by_func(x, inv_std, net),
        "torch.compile of vmap(jacrev)": lambda: compiled(x, inv_std, net),
        **{name: partial(run, first) for name, first in by_hand.items()},
        **jx.jitted(jac.gram_by_jax, x, inv_std, *jx.network(net)),
    }
