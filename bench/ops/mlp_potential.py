"""``mlp_potential`` against autograd, torch.compile and JAX."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

from vaefast import ops
from vaefast.bench.cases import Posterior
from vaefast.bench.ops import _decoder as nets
from vaefast.bench.runner import Benchmark

ROWS = (1, 64, 512)


def benchmarks() -> Iterator[Benchmark]:
    """Energy and gradient under the decoder 32-512-512-784: 2.7 MFLOP a row."""
    for N in ROWS:
        case = nets.decoder(N)
        mlp = case.mlp
        yield Benchmark(
            op="mlp_potential",
            case=f"32-512-512-784 N={N} float32 {nets.DEVICE}",
            providers=providers(case),
            bytes=nets.weight_bytes(mlp) + 4 * N * (2 * mlp.in_features + mlp.out_features),
            flop=2 * nets.flop(mlp, N),
            ceiling="matrix products alone",
            tolerance=1e-2,
        )


def providers(case: Posterior) -> dict[str, Callable[[], Tensor]]:
    """Each returns the gradient, having computed the energy as well."""
    z, x, mlp = case
    compiled = nets.compiled(nets.by_hand)
    return {
        "vaefast": lambda: ops.mlp_potential(z, x, mlp, likelihood="bernoulli")[1],
        "matrix products alone": nets.matrix_products(mlp, len(z), passes=2),
        "autograd": lambda: nets.by_autograd(z, x, mlp)[1],
        "torch.compile": lambda: compiled(z, x, mlp)[1],
        **nets.jitted(jax_gradient, z, x, mlp.weights, mlp.biases),
    }


def jax_gradient(z, x, weights, biases):
    import jax

    return jax.value_and_grad(nets.jax_potential)(z, x, weights, biases)[1]
