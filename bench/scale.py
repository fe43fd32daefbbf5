"""A job of 10⁷ and 10⁹ inputs on 64 GPUs, simulated: ``python -m vaefast.bench.scale``.

Simulates with the costs that :mod:`vaefast.bench.scale_costs` measured and, where no GPU was
measured, with assumptions, each varied over a range; writes bench/results/scale.csv, the figure
and the tables of docs/scale.md. ``--tables`` writes the page from the CSV file alone.
"""

from __future__ import annotations

import argparse
import csv
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from vaefast.bench import scale_table
from vaefast.bench.scale_simulation import Costs, Job, best_size, simulate, waste

__all__ = ["ASSUMED", "Row", "costs_of", "main", "rows"]

MEASURED = Path("bench/results/scale_costs.csv")
RESULTS = Path("bench/results/scale.csv")
PAGE, FIGURE = Path("docs/scale.md"), Path("docs/images/scale.svg")
BLOCK = re.compile(r"(<!-- scale:(\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
WORK = {
    "MLP": "FLOP of a row, MLP 784-512-512-32",
    "convolutional": "FLOP of a row, published convolutional",
    "heavy": "",  # 10¹² FLOP a row, as attacks through the defence take
}
HEAVY = 1e12
ONE, TOGETHER = "4096 rows", "16 at once, each"
SEEDS = 3
MOST_SHARDS = 10**6  # of a simulation; of more the formula tells enough
LONG = ("slow", "life", "replace")  # matter in jobs of days


@dataclass(frozen=True)
class Assumed:
    """What could not be measured here: low, the base case, high."""

    what: str
    low: float
    base: float
    high: float
    unit: str
    source: str


ASSUMED = {
    "peak": Assumed("FP32 of a GPU", 19.5e12, 67e12, 67e12, "FLOP/s", "data sheets, A100 and H100"),
    "share": Assumed(
        "reached share of it", 0.05, 0.2, 0.5, "", "guess; CPU kernels reach .6 to .9"
    ),
    "storage": Assumed("reading, all together", 1e9, 5e9, 50e9, "bytes/s", "guess: NFS to Lustre"),
    "metadata": Assumed("file system's time, to this disk's", 0.2, 1, 10, "times", "guess"),
    "start": Assumed("start of a worker", 10, 30, 120, "s", "measured on a CPU: 3 s; CUDA, image"),
    "slow": Assumed("slowest 1 of 64 GPUs", 1, 1.5, 3, "times", "guess"),
    "life": Assumed("life of a node of 8 GPUs", 24, 6300, 6300, "h", "Llama 3 report; spot: guess"),
    "replace": Assumed("until a node is back", 60, 300, 1800, "s", "guess"),
}


@dataclass(frozen=True)
class Row:
    """One simulated job; shares of 1, the mean over seeds.

    ``case`` is "sizes WORK" or the assumption that was set to ``value``.
    """

    case: str
    value: float
    rows: int
    size: int
    workers: int
    hours: float
    efficiency: float
    formula: float
    driver: float
    metadata: float
    storage: float
    tail: float
    lost: float
    retried: int


def measured(path: Path) -> dict[str, float]:
    """The newest value of each cost."""
    with path.open(newline="") as file:
        return {row["case"]: float(row["value"]) for row in csv.DictReader(file)}


def costs_of(work: str, found: dict[str, float], **changed: float) -> Costs:
    """Of a worker with a GPU, with the base assumptions but for those that are named."""
    assumed = {name: one.base for name, one in ASSUMED.items()} | changed
    flop = found[WORK[work]] if WORK[work] else HEAVY
    alone, together = (found[f"shard written, {what}"] for what in (ONE, TOGETHER))
    lease = found["lease, taken and given back"]
    return Costs(
        row=flop / (assumed["peak"] * assumed["share"]),
        dispatch=found["Ray: processor of the driver, a call"],
        lease=assumed["metadata"] * lease,
        write=assumed["metadata"] * together,
        wait=assumed["metadata"] * max(0.0, alone - together),
        bytes_in=4 * 784,
        storage=assumed["storage"],
        start=assumed["start"],
        spread=0.02,
        slow_share=1 / 64,
        slow_factor=assumed["slow"],
        node_life=3600 * assumed["life"],
        notice=30.0,
        replace=assumed["replace"],
    )


def row(case: str, value: float, job: Job, costs: Costs) -> Row:
    runs = [simulate(job, costs, seed) for seed in range(SEEDS)]

    def mean(values: list[float]) -> float:
        return float(f"{sum(values) / SEEDS:.4g}")

    total = [job.workers * run.seconds for run in runs]
    return Row(
        case=case,
        value=value,
        rows=job.rows,
        size=job.size,
        workers=job.workers,
        hours=mean([run.seconds / 3600 for run in runs]),
        efficiency=mean([run.efficiency(job, costs) for run in runs]),
        formula=float(f"{1 / (1 + waste(job, costs)):.4g}"),
        driver=mean([run.load("driver") for run in runs]),
        metadata=mean([run.load("metadata") for run in runs]),
        storage=mean([run.load("storage") for run in runs]),
        tail=mean([run.tail / run.seconds for run in runs]),
        lost=mean([run.lost / all for run, all in zip(runs, total)]),
        retried=round(mean([float(sum(run.attempts) - job.shards) for run in runs])),
    )


def rows(found: dict[str, float], inputs: tuple[int, ...], sizes: tuple[int, ...]) -> Iterator[Row]:
    """Shard sizes of each work; the assumptions one by one; more workers."""
    for work in WORK:
        for n in inputs:
            for size in sizes:
                if (job := Job(n, size)).shards < MOST_SHARDS:
                    yield row(f"sizes {work}", size, job, costs_of(work, found))
    for name, one in ASSUMED.items():
        for value in sorted({one.low, one.base, one.high}):
            work, n = ("heavy", 10 * inputs[0]) if name in LONG else ("MLP", inputs[0])
            costs = costs_of(work, found, **{name: value})
            job = Job(n, _power_of_two(best_size(Job(n, 1), costs)))
            yield row(name, value, job, costs)
    for workers in (64, 256, 1024, 4096):
        costs = replace(costs_of("MLP", found), storage=math.inf)
        yield row("workers", workers, Job(inputs[0] // 64 * workers, 4096, workers), costs)


def _power_of_two(size: float) -> int:
    return 2 ** max(6, round(math.log2(size)))


def main(arguments: list[str]) -> int:
    """Simulate, write the rows, and bring the page up to date; ``--check`` says if it is."""
    parser = argparse.ArgumentParser(prog="python -m vaefast.bench.scale")
    parser.add_argument("--costs", type=Path, default=MEASURED)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--tables", action="store_true", help="only write the page from --out")
    parser.add_argument("--check", action="store_true", help="only say whether the page is current")
    given = parser.parse_args(arguments)
    costs = measured(given.costs)
    if not (given.tables or given.check):
        _write(given.out, rows(costs, (10**7, 10**9), scale_table.SIZES))
    found = _read(given.out)
    before = PAGE.read_text()
    after = BLOCK.sub(lambda m: m[1] + "\n".join(_block(m[2], found, costs)) + "\n" + m[3], before)
    if given.check:
        return int(after != before)
    PAGE.write_text(after)
    scale_table.figure(found, FIGURE)
    return 0


def _block(name: str, found: list[Row], costs: dict[str, float]) -> list[str]:
    return {
        "costs": lambda: scale_table.costs_table(costs),
        "sizes": lambda: scale_table.sizes_table(found),
        "assumptions": lambda: scale_table.assumptions_table(found, ASSUMED),
        "limits": lambda: scale_table.limits_table({w: costs_of(w, costs) for w in WORK}),
        "workers": lambda: scale_table.workers_table(found),
        "files": lambda: scale_table.files_table(costs),
    }[name]()


def _write(path: Path, found: Iterator[Row]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [one.name for one in fields(Row)])
        writer.writeheader()
        for one in found:
            writer.writerow(asdict(one))
            print(one, flush=True)


def _read(path: Path) -> list[Row]:
    whole = {"rows", "size", "workers", "retried"}
    with path.open(newline="") as file:
        return [
            Row(
                **{
                    k: v if k == "case" else int(v) if k in whole else float(v)
                    for k, v in r.items()
                }
            )
            for r in csv.DictReader(file)
        ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
