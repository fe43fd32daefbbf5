"""``mlp_jvp`` against torch.func, its compiled form, and JAX."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.func import jvp, vmap

from vaefast import ops
from vaefast.bench.cases import images
from vaefast.bench.ops import _nets as nets
from vaefast.bench.runner import Benchmark
from vaefast.types import MLP

INPUTS, PROBES = 64, 16


def benchmarks() -> Iterator[Benchmark]:
    """Norms of 16 products with the encoder 784-512-512-32's Jacobian at 64 images."""
    mlp, B, K = nets.encoder(), INPUTS, PROBES
    x = images(B, mlp.in_features, device=nets.DEVICE).x
    v = torch.randn(K, mlp.in_features, device=nets.DEVICE)
    shared = 2 * K * mlp.weights[0].numel()  # the first product is the same for all images
    beyond = 2 * B * K * sum(weight.numel() for weight in mlp.weights[1:])
    yield Benchmark(
        op="mlp_jvp",
        case=f"784-512-512-32 B={B} K={K} float32 {nets.DEVICE}",
        providers=providers(x, v, mlp),
        bytes=nets.weight_bytes(mlp) + 4 * (B + K) * mlp.in_features + 8 * B * K,
        flop=nets.flop(mlp, B) + shared + beyond,
        ceiling="matrix products alone",
        tolerance=1e-1,
    )


def providers(x: Tensor, v: Tensor, mlp: MLP) -> dict[str, Callable[[], Tensor]]:
    """Each returns the squared norms [B, K]."""
    compiled = nets.compiled(by_torch_func)
    tail = mlp._replace(weights=mlp.weights[1:], biases=mlp.biases[1:])
    return {
        "vaefast": lambda: ops.mlp_jvp(x, v, mlp)[1],
        "matrix products alone": nets.matrix_products(tail, len(x) * len(v)),
        "torch.func": lambda: by_torch_func(x, v, mlp),
        "torch.compile": lambda: compiled(x, v, mlp),
        **nets.jitted(by_jax, x, v, mlp.weights, mlp.biases),
    }


def by_torch_func(x: Tensor, v: Tensor, mlp: MLP) -> Tensor:
    def product(tangent: Tensor) -> Tensor:
        return jvp(lambda x: nets.forward(x, mlp), (x,), (tangent.expand_as(x),))[1]

    return vmap(product)(v).square().sum(-1).T  # [K, B, d] to [B, K]


def by_jax(x, v, weights, biases):
    import jax
    import jax.numpy as jnp

    def product(tangent):
        tangents = (jnp.broadcast_to(tangent, x.shape),)
        return jax.jvp(lambda x: nets.jax_forward(x, weights, biases), (x,), tangents)[1]

    return jnp.square(jax.vmap(product)(v)).sum(-1).T
