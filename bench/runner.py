"""Interleaved timing: all providers take turns in every round, so that drift hits all alike."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

__all__ = ["Benchmark", "Result", "measure", "run", "scaled"]

ROUND_SECONDS = 0.02  # a provider's turn lasts at least this long
CASE_SECONDS = 10.0  # slow cases get fewer rounds, so that they end near this
LEAST_ROUNDS = 5

Provider = Callable[[], Any]  # returns a tensor, a JAX array, or a tuple that starts with one
Clock = Callable[[Provider, int], float]  # seconds that so many calls take
Case = tuple[str, "Callable[[], Benchmark]"]  # its title, and what builds it
Check = Callable[[], tuple[Tensor, Tensor]]  # theirs and ours


@dataclass(frozen=True)
class Benchmark:
    """One case of one op: the work, what it costs at least, and who does it.

    Args:
        op: the op's name.
        case: sizes and dtype, as the table shows them.
        providers: name to callable; the first is ours. Names that start with "vaefast" are ours
            too. What each returns is compared with what the first returns.
        bytes: bytes that any implementation must read and write.
        flop: floating-point operations that any implementation must do.
        ceiling: name of the provider that marks the machine's limit; it is not checked.
        tolerance: largest difference from ours, relative to our largest entry where that is
            above 1.
        outliers: share of the entries that may differ more, where a comparison with a random
            number may fall differently by round-off.
        checks: provider name to what is compared in place of its result, where it draws its own
            random numbers.
        scale: provider name to how often its timed call goes into the case; default 1.
        once: provider name to the seconds of its timed call that go into the case once.
        at_least: what the best peer's time must be of ours.
        at_least_of: the same for peers that are held to another figure.
        percent_at_least: which share of the ceiling must be reached; NaN for none.
        memory: measures our peak memory beyond the inputs, in MiB; ``mib_at_most`` limits it.
        precision: of the matrix products on a GPU, ours and theirs.
        limit: which of the GPU's measured ceilings stands in place of ``ceiling``.
        seconds_at_most: what our time is held against.
        repeatable: a second call of ours gives the same result.
        remark: what a reader of the times has to know besides, found out in a call of its own.
    """

    op: str
    case: str
    providers: dict[str, Provider]
    bytes: int
    flop: int
    ceiling: str = ""
    tolerance: float = 1e-4
    outliers: float = 0.0
    checks: Mapping[str, Check] = field(default_factory=dict)
    scale: Mapping[str, float] = field(default_factory=dict)
    once: Mapping[str, Callable[[], float]] = field(default_factory=dict)
    at_least: float = 1.0
    at_least_of: Mapping[str, float] = field(default_factory=dict)
    percent_at_least: float = math.nan
    memory: Callable[[], float] | None = None
    mib_at_most: float = math.nan
    precision: str = "ieee"
    limit: str = ""
    seconds_at_most: float = math.nan
    repeatable: bool = True
    remark: Callable[[], str] | None = None


@dataclass(frozen=True)
class Result:
    """One row of the table; times are microseconds a call, quartiles over the rounds."""

    op: str
    case: str
    provider: str
    median_us: float
    low_us: float
    high_us: float
    gb_per_s: float
    gflop_per_s: float
    percent_of_ceiling: float
    times_ours: float


def measure(
    providers: dict[str, Provider],
    rounds: int = 15,
    clock: Clock | None = None,
    case_seconds: float | None = None,
    least: int = LEAST_ROUNDS,
) -> dict[str, list[float]]:
    """Seconds a call for each provider, one figure a round, the providers interleaved."""
    clock = clock or seconds_on_cpu
    once = {name: _seconds_once(function, clock) for name, function in providers.items()}
    calls = {name: max(1, math.ceil(ROUND_SECONDS / max(s, 1e-9))) for name, s in once.items()}
    affordable = (case_seconds or CASE_SECONDS) / sum(calls[name] * once[name] for name in once)
    rounds = min(rounds, max(least, int(affordable)))
    seconds: dict[str, list[float]] = {name: [] for name in providers}
    for _ in range(rounds):
        for name, function in providers.items():
            seconds[name].append(clock(function, calls[name]) / calls[name])
    return seconds


def _seconds_once(function: Provider, clock: Clock) -> float:
    first = clock(function, 1)
    return first if first > 10 * ROUND_SECONDS else clock(function, 2) / 2


def seconds_on_cpu(function: Provider, calls: int) -> float:
    """By the clock on the wall; where ``VAEFAST_BENCH_CLOCK=processor``, by the process's own.

    The latter is for a machine that others use too, with ``OMP_NUM_THREADS=1`` and
    ``XLA_FLAGS="--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"``.
    """
    processor = os.environ.get("VAEFAST_BENCH_CLOCK") == "processor"
    clock = time.process_time if processor else time.perf_counter
    start = clock()
    for _ in range(calls):
        function()
    return clock() - start


def seconds_on_gpu(function: Provider, calls: int) -> float:
    """Between two events of torch's stream; JAX, which has its own, is waited for by the clock."""
    torch.cuda.synchronize()
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start = time.perf_counter()
    first.record()
    for _ in range(calls):
        result = function()
    last.record()
    if wait := getattr(_first(result), "block_until_ready", None):
        wait()
        return time.perf_counter() - start
    last.synchronize()
    return first.elapsed_time(last) / 1000


def check(benchmark: Benchmark) -> None:
    """Every provider agrees with ours.

    Raises:
        AssertionError: one does not; nothing is timed then.
    """
    names = list(benchmark.providers)
    ours = tensor_of(benchmark.providers[names[0]]()).clone()  # others may write where it lies
    for name in names[1:]:
        theirs, truth = benchmark.providers[name](), ours  # compiles what is compiled
        if name == benchmark.ceiling:
            continue
        if name in benchmark.checks:
            theirs, truth = benchmark.checks[name]()
        compare(benchmark, name, tensor_of(theirs), tensor_of(truth))


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) else value


def tensor_of(value: Any) -> Tensor:
    first = _first(value)
    return first if isinstance(first, Tensor) else torch.from_dlpack(first)


def compare(benchmark: Benchmark, name: str, theirs: Tensor, ours: Tensor) -> None:
    """
    Raises:
        AssertionError: they differ by more than the benchmark allows.
    """
    if theirs.shape != ours.shape:
        raise AssertionError(
            f"{benchmark.op} {benchmark.case}: {name} gives {list(theirs.shape)}, "
            f"ours {list(ours.shape)}"
        )
    truth = ours.double()
    error = (theirs.double() - truth).abs().flatten()
    allowed = int(benchmark.outliers * error.numel())
    if allowed:
        error = error.sort().values[: error.numel() - allowed]  # NaN sorts last
    worst = error.max().item()
    limit = benchmark.tolerance * max(1.0, truth.abs().max().item())
    if not worst <= limit:
        raise AssertionError(
            f"{benchmark.op} {benchmark.case}: {name} and {next(iter(benchmark.providers))} "
            f"differ by {worst:.2g}, more than {limit:.2g}"
        )


def run(benchmark: Benchmark, rounds: int = 15) -> list[Result]:
    """Check, then time all providers of one benchmark."""
    torch.compiler.reset()  # no case compiles for the shapes of another
    check(benchmark)
    seconds = scaled(benchmark, measure(benchmark.providers, rounds))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ours = next(iter(medians.values()))
    ceiling = medians.get(benchmark.ceiling, math.nan)
    return [row(benchmark, name, values, ours, ceiling) for name, values in seconds.items()]


def scaled(benchmark: Benchmark, seconds: dict[str, list[float]]) -> dict[str, list[float]]:
    """Seconds of the whole case, from those of the calls that were timed."""
    found = {}
    for name, values in seconds.items():
        scale = benchmark.scale.get(name, 1.0)
        once = benchmark.once[name]() if name in benchmark.once else 0.0
        found[name] = [once + scale * max(0.0, value - once) for value in values]
    return found


def row(
    benchmark: Benchmark, name: str, values: list[float], ours: float, ceiling: float
) -> Result:
    """One provider's figures from its seconds a call, our median and the ceiling's."""
    median = statistics.median(values)
    return Result(
        op=benchmark.op,
        case=benchmark.case,
        provider=name,
        median_us=median * 1e6,
        low_us=_quantile(values, 0.25) * 1e6,
        high_us=_quantile(values, 0.75) * 1e6,
        gb_per_s=benchmark.bytes / median / 1e9,
        gflop_per_s=benchmark.flop / median / 1e9,
        percent_of_ceiling=100 * ceiling / median,
        times_ours=median / ours,
    )


def _quantile(values: list[float], q: float) -> float:
    return torch.tensor(values, dtype=torch.float64, device="cpu").quantile(q).item()
