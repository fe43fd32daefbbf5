"""``net_jvp`` against torch.func, products by hand, their compiled forms, and JAX."""

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
    """Norms of 8 products with the encoders' Jacobians at 256 images."""
    for shape in nets.TABLE:
        net = nets.encoder(shape)
        x = images(B, net.in_features, device=nets.DEVICE).x
        for whose, tangents in (("shared", (K,)), ("own", (B, K))):
            generator = torch.Generator().manual_seed(1)
            v = torch.randn(*tangents, net.in_features, generator=generator).to(x)
            first = 2 * v[..., 0].numel() * net.weights[0].numel()
            beyond = 2 * B * K * sum(weight.numel() for weight in net.weights[1:])
            yield Benchmark(
                op="net_jvp",
                case=f"{shape.reversed()} B={B} K={K} {whose} probes float32 {nets.DEVICE}",
                providers=providers(x, v, net),
                bytes=nets.weight_bytes(net) + 4 * (x.numel() + v.numel()) + 8 * B * K,
                flop=nets.flop(net, B) + first + beyond,
                ceiling="matrix products alone",
                at_least=1.2 if shape == nets.TABLE[0] else 1.0,
            )


def providers(x: Tensor, v: Tensor, net: Network) -> dict[str, Provider]:
    """Each returns the squared norms [B, K] and the output."""
    func, by_hand = nets.compiled(jac.jvp_by_func), nets.compiled(jac.jvp_by_hand)
    first = nets.product(v[..., 0].numel(), net.weights[0])
    beyond = [nets.product(B * K, weight) for weight in net.weights[1:]]
    return {
        "vaefast": lambda: ops.net_jvp(x, v, net)[::-1],
        "matrix products alone": nets.alone([*nets.forward_products(net, B), first, *beyond]),
        "torch.func": lambda: jac.jvp_by_func(x, v, net),
        "torch.compile of torch.func": lambda: func(x, v, net),
        "by hand": lambda: jac.jvp_by_hand(x, v, net),
        "torch.compile by hand": lambda: by_hand(x, v, net),
        **jx.jitted(jac.jvp_by_jax, x, v, *jx.network(net)),
    }
