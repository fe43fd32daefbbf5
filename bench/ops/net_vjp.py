"""``net_vjp`` against torch.func, products by hand, their compiled forms, and JAX."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from vaefast import ops
from vaefast.bench.cases import images
from vaefast.bench.ops import _jacobian as jac
from vaefast.bench.ops import _jax as jx
from vaefast.bench.ops import _nets as nets
from vaefast.bench.runner import Benchmark, Provider
from vaefast.types import Network

B, K = 256, 8


def benchmarks() -> Iterator[Benchmark]:
    """Norms of 8 products with the encoders' transposed Jacobians at 256 images."""
    for shape in nets.TABLE:
        net = nets.encoder(shape)
        x = images(B, net.in_features, device=nets.DEVICE).x
        for whose, cotangents in (("shared", (K,)), ("own", (B, K))):
            generator = torch.Generator().manual_seed(1)
            u = torch.randn(*cotangents, net.out_features, generator=generator).to(x)
            yield Benchmark(
                op="net_vjp",
                case=f"{shape.reversed()} B={B} K={K} {whose} probes float32 {nets.DEVICE}",
                providers=providers(x, u, net),
                bytes=nets.weight_bytes(net) + 4 * (x.numel() + u.numel()) + 8 * B * K,
                flop=nets.flop(net, B) + nets.flop(net, B * K) - spared(net),
                ceiling="matrix products alone",
                at_least=1.2 if shape == nets.TABLE[0] else 1.0,
            )


def spared(net: Network) -> int:
    """FLOP that W₁W₁ᵀ, formed once, saves in the last product of the norms; 0 where none."""
    H, D = net.weights[0].shape
    return max(0, 2 * B * K * H * (D - H) - 2 * H * H * D)


def products(u: Tensor, net: Network) -> list[nets.Product]:
    first, *others = net.weights
    last = nets.product(u[..., 0].numel(), others[-1], back=True)
    inner = [nets.product(B * K, weight, back=True) for weight in others[-2::-1]]
    if not spared(net):
        return [*nets.forward_products(net, B), last, *inner, nets.product(B * K, first, back=True)]
    gram = nets.product(len(first), first)  # W₁ times W₁ᵀ
    return [*nets.forward_products(net, B), last, *inner, gram, nets.product(B * K, gram[2])]


def providers(x: Tensor, u: Tensor, net: Network) -> dict[str, Provider]:
    """Each returns the squared norms [B, K] and the output."""
    func, by_hand = nets.compiled(jac.vjp_by_func), nets.compiled(jac.vjp_by_hand)
    return {
        "vaefast": lambda: ops.net_vjp(x, u, net)[::-1],
        "matrix products alone": nets.alone(products(u, net)),
        "torch.func": lambda: jac.vjp_by_func(x, u, net),
        "torch.compile of torch.func": lambda: func(x, u, net),
        "by hand": lambda: jac.vjp_by_hand(x, u, net, "W1"),
        "by hand, W1 W1ᵀ": lambda: jac.vjp_by_hand(x, u, net, "G"),
        "torch.compile by hand": lambda: by_hand(x, u, net, "W1"),
        "torch.compile by hand, W1 W1ᵀ": lambda: by_hand(x, u, net, "G"),
        **jx.jitted(jac.vjp_by_jax, x, u, *jx.network(net)),
    }
