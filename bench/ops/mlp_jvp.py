"""``mlp_jvp`` against torch.func, products by hand, their compiled forms, and JAX."""

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
from vaefast.types import MLP

B, K = 256, 8


def benchmarks() -> Iterator[Benchmark]:
    """Norms of 8 products with the encoders' Jacobians at 256 images."""
    for shape in nets.TABLE:
        mlp = nets.encoder(shape)
        x = images(B, mlp.in_features, device=nets.DEVICE).x
        for whose, tangents in (("shared", (K,)), ("own", (B, K))):
            generator = torch.Generator().manual_seed(1)
            v = torch.randn(*tangents, mlp.in_features, generator=generator).to(x)
            first = 2 * v[..., 0].numel() * mlp.weights[0].numel()
            beyond = 2 * B * K * sum(weight.numel() for weight in mlp.weights[1:])
            yield Benchmark(
                op="mlp_jvp",
                case=f"{shape.reversed()} B={B} K={K} {whose} probes float32 {nets.DEVICE}",
                providers=providers(x, v, mlp),
                bytes=nets.weight_bytes(mlp) + 4 * (x.numel() + v.numel()) + 8 * B * K,
                flop=nets.flop(mlp, B) + first + beyond,
                ceiling="matrix products alone",
                at_least=1.2 if shape == nets.TABLE[0] else 1.0,
            )


def providers(x: Tensor, v: Tensor, mlp: MLP) -> dict[str, Provider]:
    """Each returns the squared norms [B, K] and the output."""
    func, by_hand = nets.compiled(jac.jvp_by_func), nets.compiled(jac.jvp_by_hand)
    first = nets.product(v[..., 0].numel(), mlp.weights[0])
    beyond = [nets.product(B * K, weight) for weight in mlp.weights[1:]]
    return {
        "vaefast": lambda: ops.mlp_jvp(x, v, mlp)[::-1],
        "matrix products alone": nets.alone([*nets.forward_products(mlp, B), first, *beyond]),
        "torch.func": lambda: jac.jvp_by_func(x, v, mlp),
        "torch.compile of torch.func": lambda: func(x, v, mlp),
        "by hand": lambda: jac.jvp_by_hand(x, v, mlp),
        "torch.compile by hand": lambda: by_hand(x, v, mlp),
        **jx.jitted(jac.jvp_by_jax, x, v, *jx.network(mlp)),
    }
