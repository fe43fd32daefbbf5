"""``mlp_potential`` against autograd, the gradient by hand, torch.compile and JAX."""

from __future__ import annotations

from collections.abc import Iterator

from vaefast import ops
from vaefast.bench.cases import Posterior
from vaefast.bench.ops import _jax as jx
from vaefast.bench.ops import _nets as nets
from vaefast.bench.runner import Benchmark, Provider

ROWS = (1, 64, 512)


def benchmarks() -> Iterator[Benchmark]:
    """Energy and gradient; under the decoder 32-512-512-784 2.7 MFLOP a row."""
    for shape in nets.TABLE:
        for N in ROWS:
            case = nets.decoder(shape, N)
            mlp = case.mlp
            yield Benchmark(
                op="mlp_potential",
                case=f"{shape} N={N} float32 {nets.DEVICE}",
                providers=providers(case),
                bytes=nets.weight_bytes(mlp) + 4 * N * (2 * mlp.in_features + mlp.out_features),
                flop=2 * nets.flop(mlp, N),
                ceiling="matrix products alone",
            )


def providers(case: Posterior) -> dict[str, Provider]:
    """Each returns the gradient and the energies."""
    z, x, mlp = case
    compiled = nets.compiled(nets.by_hand)
    products = nets.forward_products(mlp, len(z)) + nets.backward_products(mlp, len(z))
    return {
        "vaefast": lambda: ops.mlp_potential(z, x, mlp, likelihood="bernoulli")[::-1],
        "matrix products alone": nets.alone(products),
        "autograd": lambda: nets.by_autograd(z, x, mlp)[::-1],
        "gradient by hand": lambda: nets.by_hand(z, x, mlp)[::-1],
        "torch.compile": lambda: compiled(z, x, mlp)[::-1],
        **jx.jitted(jx.gradient_and_energy, z, x, *jx.network(mlp)),
    }
