"""``mlp_jacobian_gram`` against torch.func's Jacobian, its compiled form, and JAX."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor
from torch.func import jacrev, vmap

from vaefast import ops
from vaefast.bench.cases import images
from vaefast.bench.ops import _nets as nets
from vaefast.bench.runner import Benchmark
from vaefast.types import MLP

INPUTS = (1, 64)


def benchmarks() -> Iterator[Benchmark]:
    """Exact Gram matrices of the encoder 784-512-512-32: about 27 MFLOP an image."""
    mlp = nets.encoder()
    for B in INPUTS:
        x = images(B, mlp.in_features, device=nets.DEVICE).x
        yield Benchmark(
            op="mlp_jacobian_gram",
            case=f"784-512-512-32 B={B} float32 {nets.DEVICE}",
            providers=providers(x, mlp),
            bytes=nets.weight_bytes(mlp) + 4 * B * (mlp.in_features + mlp.out_features**2),
            flop=nets.flop(mlp, B) + B * chain_flop(mlp),
            ceiling="matrix products alone",
            tolerance=1e-1,
        )


def chain_flop(mlp: MLP) -> int:
    """d pulled to the first layer, times the triangular factor, times its own transpose."""
    d, H = mlp.out_features, mlp.weights[0].shape[0]
    inner = sum(weight.numel() for weight in mlp.weights[1:-1])
    return 2 * d * inner + d * H * H + 2 * d * d * H


def providers(x: Tensor, mlp: MLP) -> dict[str, Callable[[], Tensor]]:
    """Each returns the matrices [B, d, d]."""
    compiled = nets.compiled(by_torch_func)
    inner = mlp.weights[1]  # the last of the two stands for the factor, taken as if it were full
    middle = mlp._replace(weights=[inner, inner], biases=[None, None])
    return {
        "vaefast": lambda: ops.mlp_jacobian_gram(x, mlp),
        "matrix products alone": nets.matrix_products(middle, len(x) * mlp.out_features),
        "torch.func": lambda: by_torch_func(x, mlp),
        "torch.compile": lambda: compiled(x, mlp),
        **nets.jitted(by_jax, x, mlp.weights, mlp.biases),
    }


def by_torch_func(x: Tensor, mlp: MLP) -> Tensor:
    J = vmap(jacrev(lambda row: nets.forward(row, mlp)))(x)  # [B, d, D]
    return J @ J.mT


def by_jax(x, weights, biases):
    import jax

    J = jax.vmap(jax.jacrev(lambda row: nets.jax_forward(row, weights, biases)))(x)
    return J @ J.mT
