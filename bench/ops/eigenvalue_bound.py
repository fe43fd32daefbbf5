"""``eigenvalue_bound`` against torch's batched eigensolver."""

from __future__ import annotations

from functools import partial

import torch

from vaefast import ops
from vaefast.bench.place import Place
from vaefast.bench.runner import Benchmark, Case
from vaefast.functional.eigenvalues import SQUARINGS

__all__ = ["cases"]


def cases(place: Place) -> list[Case]:
    """Gram matrices; 2d³ FLOP a squaring, each matrix read once."""
    sizes = place.table(((64, 10), (64, 32)), ((16384, 32), (4096, 128)), ((3, 4),))
    return [(f"B={B} d={d}", partial(case, place, B, d)) for B, d in sizes]


def case(place: Place, B: int, d: int) -> Benchmark:
    root = place.normal(B, d, 2 * d).double()
    A = root @ root.mT
    backend = place.backend("eigenvalue_bound")
    return Benchmark(
        op="eigenvalue_bound",
        case=f"B={B} d={d} float64 {place.device}",
        providers={
            "vaefast": lambda: ops.eigenvalue_bound(A, backend=backend),
            "eigvalsh": lambda: torch.linalg.eigvalsh(A)[:, -1],
        },
        bytes=8 * B * d * d,
        flop=2 * SQUARINGS * B * d**3,
        tolerance=1e-5,  # what squaring overestimates
    )
