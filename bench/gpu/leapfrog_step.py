"""``leapfrog_step`` on states that exceed the L2 cache, in one piece and in 64."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from vaefast import ops
from vaefast.bench.gpu.place import Place, rotating
from vaefast.bench.ops import leapfrog_step as rivals
from vaefast.bench.runner import Benchmark, Provider

__all__ = ["cases"]

SIZES = ((1 << 21, 64, 1), (4096, 64, 64))  # chains, latents, states that take turns


def cases(place: Place) -> list[tuple[str, Callable[[], Benchmark]]]:
    """20 bytes an element: z and p read and written, grad read."""
    sizes = place.size(SIZES, ((3, 5, 2),))
    return [(f"N={N} d={d}", partial(case, place, N, d, states)) for N, d, states in sizes]


def case(place: Place, N: int, d: int, states: int) -> Benchmark:
    backend = place.backend("leapfrog_step")
    step = torch.full((N,), rivals.STEP, device=place.device)

    def taking_turns(function: Callable) -> Provider:
        def on(z: Tensor, p: Tensor, grad: Tensor) -> Provider:
            def run() -> Tensor:
                function(z, p, grad, step)
                return z

            return run

        return rotating(on, [tuple(place.normal(3, N, d, seed=s)) for s in range(states)])

    return Benchmark(
        op="leapfrog_step",
        case=f"N={N} d={d}, {states} in turn, float32 {place.device}",
        providers={
            "vaefast": taking_turns(partial(ops.leapfrog_step, backend=backend)),
            "torch.compile": taking_turns(place.compiled(rivals.eager)),
            "eager": taking_turns(rivals.eager),
        },
        bytes=20 * N * d,
        flop=5 * N * d,
        limit="copy",
        repeatable=False,
    )
