"""``net_trajectory`` against autograd, the gradient by hand, compiled loops, and JAX."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from vaefast import ops
from vaefast.bench.cases import Posterior
from vaefast.bench.ops import _hmc as hmc
from vaefast.bench.ops import _jax as jx
from vaefast.bench.ops import _nets as nets
from vaefast.bench.runner import Benchmark, Provider

L = hmc.LEAPFROGS


def benchmarks() -> Iterator[Benchmark]:
    """10 leapfrogs; under the decoder 32-512-512-784 27 MFLOP a chain."""
    for shape in nets.TABLE:
        for N in hmc.ROWS:
            case = nets.decoder(shape, N)
            net, first = case.net, shape == nets.TABLE[0]
            yield Benchmark(
                op="net_trajectory",
                case=f"{shape} N={N} L={L} float32 {nets.DEVICE}",
                providers=providers(case),
                bytes=nets.weight_bytes(net) + 4 * N * (6 * net.in_features + net.out_features),
                flop=2 * L * nets.flop(net, N),
                ceiling="matrix products alone",
                at_least=hmc.AT_LEAST[N] if first else 1.0,
                percent_at_least=85.0 if first and N == 1024 else math.nan,
            )


def providers(case: Posterior) -> dict[str, Provider]:
    """Each returns the end: position, momentum, gradient and energy."""
    z, x, net = case
    p = torch.randn(z.shape, generator=torch.Generator().manual_seed(1)).to(z)
    _, grad = ops.net_potential(z, x, net, likelihood="bernoulli")
    options = {"likelihood": "bernoulli", "step": hmc.STEP, "leapfrog": L}
    products = nets.forward_products(net, len(z)) + nets.backward_products(net, len(z))
    gradient, whole = nets.compiled(nets.by_hand), nets.compiled(hmc.trajectory)
    start = z, p, grad, x
    found = {
        "vaefast": lambda: ops.net_trajectory(*start, net, **options),
        "matrix products alone": nets.alone(products, repeat=L),
        "autograd": lambda: hmc.trajectory(*start, net, nets.by_autograd),
        "gradient by hand": lambda: hmc.trajectory(*start, net, nets.by_hand),
        "torch.compile of the gradient": lambda: hmc.trajectory(*start, net, gradient),
        "torch.compile of the loop": lambda: whole(*start, net, nets.by_hand),
    }
    for name, (function, network) in hmc.jax_gradients(net).items():
        found |= jx.jitted(hmc.jax_trajectory(function), *start, *network, name=name)
    return found
