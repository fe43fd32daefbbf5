"""``mlp_vjp`` against torch.func, its compiled form, and JAX."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.func import vjp, vmap

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
    u = torch.randn(K, mlp.out_features, device=nets.DEVICE)
    yield Benchmark(
        op="mlp_vjp",
        case=f"784-512-512-32 B={B} K={K} float32 {nets.DEVICE}",
        providers=providers(x, u, mlp),
        bytes=nets.weight_bytes(mlp) + 4 * B * mlp.in_features + 8 * B * K,
        flop=nets.flop(mlp, B) + nets.flop(mlp, B * K),
        ceiling="matrix products alone",
        tolerance=1e-1,
    )


def providers(x: Tensor, u: Tensor, mlp: MLP) -> dict[str, Callable[[], Tensor]]:
    """Each returns the squared norms [B, K]."""
    compiled = nets.compiled(by_torch_func)
    return {
        "vaefast": lambda: ops.mlp_vjp(x, u, mlp)[1],
        "matrix products alone": nets.matrix_products(mlp, len(x) * len(u)),
        "torch.func": lambda: by_torch_func(x, u, mlp),
        "torch.compile": lambda: compiled(x, u, mlp),
        **nets.jitted(by_jax, x, u, mlp.weights, mlp.biases),
    }


def by_torch_func(x: Tensor, u: Tensor, mlp: MLP) -> Tensor:
    y, pull = vjp(lambda x: nets.forward(x, mlp), x)
    products = vmap(lambda u: pull(u.expand_as(y))[0])(u)  # [K, B, D]
    return products.square().sum(-1).T


def by_jax(x, u, weights, biases):
    import jax
    import jax.numpy as jnp

    y, pull = jax.vjp(lambda x: nets.jax_forward(x, weights, biases), x)
    products = jax.vmap(lambda u: pull(jnp.broadcast_to(u, y.shape))[0])(u)
    return jnp.square(products).sum(-1).T
