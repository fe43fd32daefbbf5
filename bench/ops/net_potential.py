"""``net_potential`` against autograd, the gradient by hand, torch.compile and JAX."""

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
            net = case.net
            yield Benchmark(
                op="net_potential",
                case=f"{shape} N={N} float32 {nets.DEVICE}",
                providers=providers(case),
                bytes=nets.weight_bytes(net) + 4 * N * (2 * net.in_features + net.out_features),
                flop=2 * nets.flop(net, N),
                ceiling="matrix products alone",
            )


def providers(case: Posterior) -> dict[str, Provider]:
    """Each returns the gradient and the energies."""
    z, x, net = case
    compiled = nets.compiled(nets.by_hand)
    products = nets.forward_products(net, len(z)) + nets.backward_products(net, len(z))
    return {
        "vaefast": lambda: ops.net_potential(z, x, net, likelihood="bernoulli")[::-1],
        "matrix products alone": nets.alone(products),
        "autograd": lambda: nets.by_autograd(z, x, net)[::-1],
        "gradient by hand": lambda: nets.by_hand(z, x, net)[::-1],
        "torch.compile": lambda: compiled(z, x, net)[::-1],
        **jx.jitted(jx.gradient_and_energy, z, x, *jx.network(net)),
    }
