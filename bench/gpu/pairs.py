"""One benchmark on a GPU: ours alone, then each peer in turns with ours, each row at once.

A peer that fails, disagrees or would start after the time is up is left out with the reason; one
that stalls costs only what comes after it.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from vaefast.bench.place import Place, at_precision, made_over_nan
from vaefast.bench.runner import (
    Benchmark,
    Provider,
    Result,
    compare,
    measure,
    row,
    scaled,
    tensor_of,
)

__all__ = ["first_line", "prepare", "run"]

SECONDS, LEAST = 1.5, 3  # of timing for each pair, and rounds where that is too short


def prepare(benchmark: Benchmark, provider: str | None = None) -> None:
    """One call of ours, or of a peer, which compiles what is compiled."""
    call = benchmark.providers[provider or next(iter(benchmark.providers))]
    with at_precision(benchmark.precision):
        tensor_of(call())


def run(
    benchmark: Benchmark,
    place: Place,
    ceilings: dict[str, float],
    *,
    until: float = math.inf,
    cases: int = 1,
    rounds: int = 25,
    say: Callable = print,
) -> Iterator[Result]:
    """The rows, ours first.

    Args:
        ceilings: rates by name, from :func:`vaefast.bench.gpu.ceilings.ceilings`.
        until: ``time.monotonic()`` after which no peer starts.
        cases: this one and those to come, which share the time until then that is left once ours
            has run: its peers pay for no compilation of ours.

    Raises:
        Exception: ours failed, is not written everywhere, or fails its own check.
    """
    torch.compiler.reset()
    (name, ours), *peers = benchmark.providers.items()
    ceiling = _seconds_at_ceiling(benchmark, ceilings)
    with at_precision(benchmark.precision):
        truth = tensor_of(made_over_nan(ours) if benchmark.repeatable else ours()).clone()
        until = (now := time.monotonic()) + (until - now) / cases
        if name in benchmark.checks:
            compare(benchmark, name, *benchmark.checks[name]())
        alone = measure({name: ours}, rounds, place.clock, SECONDS, LEAST)
        seconds = scaled(benchmark, alone)[name]
        yield row(benchmark, name, seconds, statistics.median(seconds), ceiling)
        for peer, call in peers:
            if time.monotonic() > until:
                say(f"  left out  {peer}: the time is up")
                continue
            try:
                _check(benchmark, peer, call, truth)
                pair = measure({name: ours, peer: call}, rounds, place.clock, SECONDS, LEAST)
            except Exception as error:  # whatever a peer's library raises is the peer's
                say(f"  left out  {peer}: {first_line(error)}")
                continue
            pair = scaled(benchmark, pair)
            yield row(benchmark, peer, pair[peer], statistics.median(pair[name]), ceiling)


def _check(benchmark: Benchmark, name: str, call: Provider, truth: Tensor) -> None:
    theirs, ours = call(), truth  # compiles what is compiled
    if name in benchmark.checks:
        theirs, ours = benchmark.checks[name]()
    compare(benchmark, name, tensor_of(theirs).to(ours.device), tensor_of(ours))


def _seconds_at_ceiling(benchmark: Benchmark, ceilings: dict[str, float]) -> float:
    """What the job takes at the measured rate; NaN where nothing limits it."""
    amount = benchmark.bytes if benchmark.limit == "copy" else benchmark.flop
    return amount / ceilings[benchmark.limit] if benchmark.limit in ceilings else math.nan


def first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160] if lines else ''}"
