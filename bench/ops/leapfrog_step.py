"""``leapfrog_step`` against plain torch in place and torch.compile."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from vaefast import ops
from vaefast.bench.ops import _nets as nets
from vaefast.bench.runner import Benchmark

SIZES = ((64, 32), (4096, 64))
STEP = 1e-9  # the state is overwritten in every call and must not run away


def benchmarks() -> Iterator[Benchmark]:
    """z and p read and written, grad read: 20 bytes an element in float32."""
    for N, d in SIZES:
        z, p, grad = torch.randn(3, N, d, device=nets.DEVICE)
        yield Benchmark(
            op="leapfrog_step",
            case=f"N={N} d={d} float32 {nets.DEVICE}",
            providers=providers(z, p, grad),
            bytes=20 * N * d,
            flop=5 * N * d,
            ceiling="torch.lerp(out=)",
        )


def providers(z: Tensor, p: Tensor, grad: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Each works on its own copy of the state and returns the position."""
    step = torch.full((len(z),), STEP, device=z.device)
    weight = torch.rand_like(z)
    compiled = nets.compiled(eager)

    def on_copy(function: Callable) -> Callable[[], Tensor]:
        own_z, own_p = z.clone(), p.clone()

        def run() -> Tensor:
            function(own_z, own_p, grad, step)
            return own_z

        return run

    return {
        "vaefast": on_copy(ops.leapfrog_step),
        "torch.lerp(out=)": lambda: torch.lerp(z, p, weight, out=weight),
        "eager": on_copy(eager),
        "torch.compile": on_copy(compiled),
    }


def eager(z: Tensor, p: Tensor, grad: Tensor, step: Tensor) -> None:
    p.addcmul_(step[:, None], grad, value=-1.0)
    z.addcmul_(step[:, None], p)
