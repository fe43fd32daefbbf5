"""What the chip reaches in the same run: bytes a second of a copy, FLOP a second of a product."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import torch

from vaefast.bench.place import PRECISIONS, Place, at_precision
from vaefast.bench.runner import Benchmark, Result, measure, row

__all__ = ["ceilings"]

ROUNDS = 9


def ceilings(place: Place) -> Iterator[tuple[str, float, Result]]:
    """Name, rate in bytes or FLOP a second, and the row; on random data."""
    yield _copy(place)
    for precision in PRECISIONS:
        with at_precision(precision):
            yield _product(place, precision)


def _copy(place: Place) -> tuple[str, float, Result]:
    """Counting bytes read and bytes written."""
    count = place.size(1 << 28, 1 << 12)
    given = place.normal(count)
    out = torch.empty_like(given)
    benchmark = Benchmark(
        op="ceiling",
        case=f"copy of {4 * count:,} bytes {place.device}",
        providers={"torch": lambda: out.copy_(given)},
        bytes=8 * count,
        flop=0,
    )
    return _measured("copy", benchmark, benchmark.bytes, place)


def _product(place: Place, precision: str) -> tuple[str, float, Result]:
    n = place.size(8192, 32)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = place.normal(2, n, n).to(dtype)
    out = torch.empty_like(a)
    benchmark = Benchmark(
        op="ceiling",
        case=f"product {n} x {n} x {n} {precision} {place.device}",
        providers={"torch": lambda: torch.mm(a, b, out=out)},
        bytes=3 * a.nbytes,
        flop=2 * n**3,
    )
    return _measured(precision, benchmark, benchmark.flop, place)


def _measured(
    name: str, benchmark: Benchmark, amount: int, place: Place
) -> tuple[str, float, Result]:
    (seconds,) = measure(benchmark.providers, ROUNDS, place.clock, 1.0).values()
    median = statistics.median(seconds)
    return name, amount / median, row(benchmark, "torch", seconds, median, median)
