"""Interleaved timing: all providers take turns in every round, so that drift hits all alike."""

from __future__ import annotations

import csv
import importlib
import math
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

import torch
from torch import Tensor

from vaefast import backends
from vaefast.environment import gpu, processor, versions

__all__ = ["Benchmark", "Result", "measure", "run", "run_cli"]

ROUND_SECONDS = 0.02  # a provider's turn lasts at least this long


@dataclass(frozen=True)
class Benchmark:
    """One case of one op: the work, what it costs at least, and who does it.

    Args:
        op: the op's name.
        case: sizes and dtype, as the table shows them.
        providers: name to callable; the first is ours. Each returns its result for the check.
        bytes: bytes that any implementation must read and write.
        flop: floating-point operations that any implementation must do.
        ceiling: name of the provider that marks the machine's limit; it is not checked.
        tolerance: largest absolute difference from the first provider's result.
    """

    op: str
    case: str
    providers: dict[str, Callable[[], Tensor]]
    bytes: int
    flop: int
    ceiling: str = ""
    tolerance: float = 1e-4


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


def measure(providers: dict[str, Callable], rounds: int = 15) -> dict[str, list[float]]:
    """Seconds a call for each provider, one figure a round, the providers interleaved."""
    calls = {name: _calls_per_turn(function) for name, function in providers.items()}
    seconds: dict[str, list[float]] = {name: [] for name in providers}
    for _ in range(rounds):
        for name, function in providers.items():
            seconds[name].append(_seconds(function, calls[name]) / calls[name])
    return seconds


def _calls_per_turn(function: Callable) -> int:
    function()
    once = _seconds(function, 2) / 2
    return max(1, math.ceil(ROUND_SECONDS / max(once, 1e-9)))


def _seconds(function: Callable, calls: int) -> float:
    _synchronize()
    start = time.perf_counter()
    for _ in range(calls):
        function()
    _synchronize()
    return time.perf_counter() - start


def _synchronize() -> None:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def check(benchmark: Benchmark) -> None:
    """Every provider agrees with ours.

    Raises:
        AssertionError: one does not; nothing is timed then.
    """
    names = iter(benchmark.providers)
    ours = next(names)
    truth = benchmark.providers[ours]().double()
    for name in names:
        if name == benchmark.ceiling:
            continue
        worst = (benchmark.providers[name]().double() - truth).abs().max().item()
        if not worst <= benchmark.tolerance:
            raise AssertionError(
                f"{benchmark.op} {benchmark.case}: {name} and {ours} differ by {worst:.2g}, "
                f"more than {benchmark.tolerance:g}"
            )


def run(benchmark: Benchmark, rounds: int = 15) -> list[Result]:
    """Check, then time all providers of one benchmark."""
    check(benchmark)
    seconds = measure(benchmark.providers, rounds)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ours = next(iter(medians.values()))
    ceiling = medians.get(benchmark.ceiling, math.nan)
    return [
        Result(
            op=benchmark.op,
            case=benchmark.case,
            provider=name,
            median_us=medians[name] * 1e6,
            low_us=_quantile(values, 0.25) * 1e6,
            high_us=_quantile(values, 0.75) * 1e6,
            gb_per_s=benchmark.bytes / medians[name] / 1e9,
            gflop_per_s=benchmark.flop / medians[name] / 1e9,
            percent_of_ceiling=100 * ceiling / medians[name],
            times_ours=medians[name] / ours,
        )
        for name, values in seconds.items()
    ]


def _quantile(values: list[float], q: float) -> float:
    return torch.tensor(values, dtype=torch.float64).quantile(q).item()


def benchmarks(ops: Iterable[str] = ()) -> Iterator[Benchmark]:
    """The declared benchmarks of the named ops, or of all."""
    for op in ops or backends.ops():
        try:
            module = importlib.import_module(f"vaefast.bench.ops.{op}")
        except ModuleNotFoundError as error:
            if error.name != f"vaefast.bench.ops.{op}":
                raise
            raise ValueError(
                f"op must be one of {', '.join(backends.ops())}, got {op!r}"
            ) from error
        yield from module.benchmarks()


def run_cli(
    ops: list[str], *, out: Path | None = None, rounds: int = 15, say: Callable = print
) -> list[Result]:
    """Run benchmarks, print a table as it grows, and append the rows to a CSV file.

    Args:
        ops: op names; empty for all.
        out: CSV file to append to; the header is written where the file is new.
        rounds: interleaved rounds.
        say: where the lines go.
    """
    say(f"{processor()}; GPU {gpu()}; torch {versions()['torch']}; median of {rounds} rounds")
    results: list[Result] = []
    for benchmark in benchmarks(ops):
        say(f"\n{benchmark.op}  {benchmark.case}")
        rows = run(benchmark, rounds)
        for row in rows:
            say(_line(row))
        results += rows
        if out is not None:
            _append(out, rows)
    return results


def _line(row: Result) -> str:
    limit = (
        "" if math.isnan(row.percent_of_ceiling) else f"{row.percent_of_ceiling:5.0f} % of limit"
    )
    return (
        f"  {row.provider:28} {row.median_us:10.1f} us  [{row.low_us:.1f}, {row.high_us:.1f}]"
        f"  {row.gb_per_s:7.1f} GB/s {row.gflop_per_s:8.1f} GFLOP/s"
        f"  {row.times_ours:6.2f} x ours  {limit}"
    )


def _append(path: Path, rows: list[Result]) -> None:
    where = {
        "device": gpu() if gpu() != "none" else processor(),
        "threads": torch.get_num_threads(),
        **versions(),
        "commit": _commit(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, [*asdict(rows[0]), *where])
        if new:
            writer.writeheader()
        for row in rows:
            writer.writerow({**asdict(row), **where})


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
