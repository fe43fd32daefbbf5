"""``mlp_trajectory`` against an autograd loop, the compiled loop, and JAX."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from vaefast import ops
from vaefast.bench.cases import Posterior
from vaefast.bench.ops import _nets as nets
from vaefast.bench.runner import Benchmark
from vaefast.types import MLP

ROWS = (10, 128)  # ten chains is one reference of Kuzina et al. 2022
LEAPFROGS, STEP = 20, 1e-3


def benchmarks() -> Iterator[Benchmark]:
    """20 leapfrogs under the decoder 32-512-512-784: 54 MFLOP a chain."""
    for N in ROWS:
        case = nets.decoder(N)
        mlp = case.mlp
        yield Benchmark(
            op="mlp_trajectory",
            case=f"32-512-512-784 N={N} L={LEAPFROGS} float32 {nets.DEVICE}",
            providers=providers(case),
            bytes=nets.weight_bytes(mlp) + 4 * N * (6 * mlp.in_features + mlp.out_features),
            flop=2 * LEAPFROGS * nets.flop(mlp, N),
            ceiling="matrix products alone",
            tolerance=1e-2,
        )


def providers(case: Posterior) -> dict[str, Callable[[], Tensor]]:
    """Each returns the last position."""
    z, x, mlp = case
    p = torch.randn(z.shape, generator=torch.Generator().manual_seed(1)).to(z)
    _, grad = ops.mlp_potential(z, x, mlp, likelihood="bernoulli")
    options = {"likelihood": "bernoulli", "step": STEP, "leapfrog": LEAPFROGS}
    compiled = nets.compiled(loop)
    return {
        "vaefast": lambda: ops.mlp_trajectory(z, p, grad, x, mlp, **options)[0],
        "matrix products alone": nets.matrix_products(mlp, len(z), passes=2 * LEAPFROGS),
        "autograd": lambda: loop(z, p, grad, x, mlp, nets.by_autograd),
        "torch.compile": lambda: compiled(z, p, grad, x, mlp, nets.by_hand),
        **nets.jitted(jax_loop, z, p, grad, x, mlp.weights, mlp.biases),
    }


def loop(z: Tensor, p: Tensor, grad: Tensor, x: Tensor, mlp: MLP, potential: Callable) -> Tensor:
    for _ in range(LEAPFROGS):
        p = p - 0.5 * STEP * grad
        z = z + STEP * p
        _, grad = potential(z, x, mlp)
        p = p - 0.5 * STEP * grad
    return z


def jax_loop(z, p, grad, x, weights, biases):
    import jax

    gradient = jax.grad(nets.jax_potential)

    def body(_, state):
        z, p, grad = state
        p = p - 0.5 * STEP * grad
        z = z + STEP * p
        grad = gradient(z, x, weights, biases)
        return z, p - 0.5 * STEP * grad, grad

    return jax.lax.fori_loop(0, LEAPFROGS, body, (z, p, grad))[0]
