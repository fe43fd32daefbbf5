"""``leapfrog_step`` against plain torch in place and torch.compile."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from vaefast import ops
from vaefast.bench.place import Place, rotating
from vaefast.bench.runner import Benchmark, Case, Provider

__all__ = ["cases"]

STEP = 1e-9  # the state is overwritten in every call and must not run away
BEYOND_CACHE = ((1 << 21, 64, 1), (4096, 64, 64))  # chains, latents, states that take turns


def cases(place: Place) -> list[Case]:
    """20 bytes an element: z and p read and written, grad read."""
    sizes = place.table(((64, 32, 1), (4096, 64, 1)), BEYOND_CACHE, ((3, 5, 2),))
    return [(f"N={N} d={d}", partial(case, place, N, d, states)) for N, d, states in sizes]


def case(place: Place, N: int, d: int, states: int) -> Benchmark:
    """Each provider works on its own copies of the states and returns the position."""
    step = torch.full((N,), STEP, device=place.device, dtype=torch.float32)

    def taking_turns(function: Callable) -> Provider:
        def on(z: Tensor, p: Tensor, grad: Tensor) -> Provider:
            def run() -> Tensor:
                function(z, p, grad, step)
                return z

            return run

        return rotating(on, [tuple(place.normal(3, N, d, seed=s)) for s in range(states)])

    found = {
        "vaefast": taking_turns(partial(ops.leapfrog_step, backend=place.backend("leapfrog_step"))),
        "torch.compile": taking_turns(place.compiled(eager)),
        "eager": taking_turns(eager),
    }
    if place.on_cpu:
        z, grad = place.normal(2, N, d)
        out = torch.rand_like(z)
        found["torch.lerp(out=)"] = lambda: torch.lerp(z, grad, out, out=out)
    turns = "" if place.on_cpu else f", {states} in turn,"
    return Benchmark(
        op="leapfrog_step",
        case=f"N={N} d={d}{turns} float32 {place.device}",
        providers=found,
        bytes=20 * N * d,
        flop=5 * N * d,
        repeatable=False,
        **place.bandwidth("torch.lerp(out=)"),
    )


def eager(z: Tensor, p: Tensor, grad: Tensor, step: Tensor) -> None:
    p.addcmul_(step[:, None], grad, value=-1.0)
    z.addcmul_(step[:, None], p)
