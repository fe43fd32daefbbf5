"""``mlp_chain`` against the same transitions around autograd and compiled trajectories."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from vaefast import ops
from vaefast.bench.cases import Posterior
from vaefast.bench.ops import _nets as nets
from vaefast.bench.runner import Benchmark
from vaefast.reference.chain import chain

ROWS = (10, 128)  # ten chains is one reference of Kuzina et al. 2022
TRANSITIONS, LEAPFROGS, STEP = 5, 20, 1e-3


def benchmarks() -> Iterator[Benchmark]:
    """5 transitions of 20 leapfrogs under the decoder 32-512-512-784: 272 MFLOP a chain."""
    for N in ROWS:
        case = nets.decoder(N)
        mlp = case.mlp
        yield Benchmark(
            op="mlp_chain",
            case=f"32-512-512-784 N={N} T={TRANSITIONS} L={LEAPFROGS} float32 {nets.DEVICE}",
            providers=providers(case),
            bytes=nets.weight_bytes(mlp) + 4 * N * (4 * mlp.in_features + mlp.out_features),
            flop=2 * TRANSITIONS * LEAPFROGS * nets.flop(mlp, N),
            ceiling="matrix products alone",
            tolerance=1e-2,
        )


def providers(case: Posterior) -> dict[str, Callable[[], Tensor]]:
    """Each returns the last position; all draw the same random numbers."""
    z, x, mlp = case
    U, grad = ops.mlp_potential(z, x, mlp, likelihood="bernoulli")
    options = {"likelihood": "bernoulli", "step": STEP, "leapfrog": LEAPFROGS}
    compiled = nets.compiled(trajectory)
    step = torch.full((len(x),), STEP, device=z.device)
    key = {"step": step, "index": torch.arange(len(x), device=z.device), "steps": TRANSITIONS}
    start = nets.by_autograd(z, x, mlp)[0].double()  # without the constant, as the other end's

    def around(run: Callable, potential: Callable) -> Callable[[], Tensor]:
        def end(z, p, grad, step):
            return run(z, p, grad, step, x, mlp, potential)

        return lambda: chain(end, z, start, grad, **key).z

    return {
        "vaefast": lambda: ops.mlp_chain(z, U, grad, x, mlp, **options, steps=TRANSITIONS).z,
        "matrix products alone": nets.matrix_products(mlp, len(z), 2 * TRANSITIONS * LEAPFROGS),
        "autograd": around(trajectory, nets.by_autograd),
        "torch.compile": around(compiled, nets.by_hand),
    }


def trajectory(z, p, grad, step, x, mlp, potential) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    step = step[:, None]
    for _ in range(LEAPFROGS):
        p = p - 0.5 * step * grad
        z = z + step * p
        U, grad = potential(z, x, mlp)
        p = p - 0.5 * step * grad
    return z, p, grad, U.double()
