"""Regenerate the tables and plots of README.md and docs/ from the measurements.

``python -m vaefast.bench.readme`` in a checkout; ``--check`` only says whether they are current.
"""

from __future__ import annotations

import csv
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path

from vaefast.bench.generic_table import GENERIC, generic_table
from vaefast.bench.integrations_table import INTEGRATIONS, integrations_table
from vaefast.bench.plot import plot
from vaefast.bench.sampler_table import SAMPLER, sampler_table

__all__ = ["main"]

RESULTS = Path("bench/results/cpu.csv")
GPU_RESULTS = Path("bench/results/gpu.csv")
CONVOLUTIONAL = Path("bench/results/convolutional.csv")
CASES = ("linf B=256 D=3072 float32 cpu", "l2 B=256 D=3072 float32 cpu")
BLOCK = re.compile(r"(<!-- bench:(\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

FILES = (Path("README.md"), Path("docs/performance.md"), Path("docs/integrations.md"))
ENGINE = (
    "net_chain",
    "net_trajectory",
    "net_jacobian_gram",
    "net_jvp",
    "net_vjp",
    "decode_distance",
    "hmc_defence",
)
HEADLINES = (("hmc_defence", "32-512-512-784 tanh"), ("net_chain", "32-512-512-784 tanh N=1 "))
SMALL = ("17-100-333-300", "8-64-3072", "300-333-100-17", "3072-64-8")  # shapes of the second table
ELSEWHERE = (*SMALL, "convolutional")
CEILING = "matrix products alone"
RENAMED = re.compile("^mlp_")

Row = dict[str, str]


def main(arguments: list[str]) -> int:
    """Rewrite the files' marked blocks; with ``--check`` return 1 where they are stale."""
    rows = latest(RESULTS)
    stale = False
    for path in FILES:
        before = path.read_text()
        after = BLOCK.sub(lambda m: m[1] + BLOCKS[m[2]](rows) + m[3], before)
        stale |= before != after
        if "--check" not in arguments:
            path.write_text(after)
    if "--check" in arguments:
        return int(stale)
    plot([("ℓ∞ step", of_case(rows, CASES[0])), ("ℓ2 step", of_case(rows, CASES[1]))])
    return 0


def latest(path: Path) -> list[Row]:
    """The rows of the newest run of each case, in a file that runs are appended to.

    A run writes a case in one piece: what comes after another case, or names a provider again,
    is a newer run, whose rows are never compared with those of an older one. The file keeps the
    names that the ops had when they were measured, ``mlp_*``; here they have today's.
    """
    newest: dict[tuple[str, str], dict[str, Row]] = {}
    before = None
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            row["op"] = RENAMED.sub("net_", row["op"])
            key = row["op"], row["case"]
            if key != before or row["provider"] in newest[key]:
                newest[key] = {}
            newest[key][row["provider"]] = row
            before = key
    return [row for group in newest.values() for row in group.values()]


def of_newest_device(rows: list[Row]) -> list[Row]:
    """Those of the device that was measured last; another one's rates are not its ceilings."""
    device = max(rows, key=lambda row: row["date"])["device"]
    return [row for row in rows if row["device"] == device]


def of_case(rows: list[Row], case: str) -> list[Row]:
    return [row for row in rows if row["case"] == case]


def headline(rows: list[Row]) -> str:
    """The opening sentence, with the two numbers that a user cares about."""
    defence, one = (best(rows, op, case) for op, case in HEADLINES)
    return (
        "On two CPU cores the published HMC defence of 500 attacked images runs "
        f"**{defence:.1f} times** as fast as the published loop,\n"
        "and one HMC chain through an MLP decoder "
        f"**{one:.1f} times** as fast as torch.compile's.\n"
    )


def best(rows: list[Row], op: str, case: str) -> float:
    """How many times our time the best peer takes."""
    group = [row for row in rows if row["op"] == op and row["case"].startswith(case)]
    return min(float(row["times_ours"]) for row in peers(group))


def table(rows: list[Row]) -> str:
    """Every provider of the two headline cases, and the conditions."""
    lines = [
        "| `pgd_step`, B=256, D=3072, float32 | ℓ∞, µs | times ours | ℓ2, µs | times ours |",
        "|---|---:|---:|---:|---:|",
    ]
    linf, l2 = (of_case(rows, case) for case in CASES)
    lines += [f"| {a['provider']} | {cells(a)} | {cells(b)} |" for a, b in zip(linf, l2)]
    return "\n".join([*lines, "", conditions(linf[0]), ""])


def cells(row: Row) -> str:
    median, low, high = (float(row[name]) for name in ("median_us", "low_us", "high_us"))
    return f"{median:.0f} ({low:.0f} to {high:.0f}) | {float(row['times_ours']):.2f}"


def conditions(row: Row) -> str:
    return (
        f"{machine(row)} Medians and quartiles of interleaved rounds, default malloc; "
        "`torch.lerp(out=)` only reads and writes the same bytes."
    )


def machine(row: Row) -> str:
    return (
        f"{row['device']}; Python {row['python']}, torch {row['torch']}, commit {row['commit']}, "
        f"{row['date'][:10]}."
    )


def engine(rows: list[Row]) -> str:
    """Ours beside the best peer on the large networks."""
    return against_peers([row for row in rows if not row["case"].startswith(ELSEWHERE)])


def engine_small(rows: list[Row]) -> str:
    """The same on networks whose widths are odd or small."""
    return against_peers([row for row in rows if row["case"].startswith(SMALL)])


def against_peers(rows: list[Row]) -> str:
    """One line a case: ours, the best peer and the machine's limit."""
    lines = [
        "| op | case | ours, ms | best peer | its ms | times ours | of the limit |",
        "|---|---|---:|---|---:|---:|---:|",
    ]
    chosen = [row for op in ENGINE for row in rows if row["op"] == op]
    lines += [line(group) for group in cases(chosen)]
    return "\n".join([*lines, "", machine(chosen[-1]) if chosen else "", ""])


def cases(rows: list[Row]) -> list[list[Row]]:
    """The rows of each case, ours first."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["op"], row["case"]), []).append(row)
    return list(groups.values())


def line(rows: list[Row]) -> str:
    ours, *others = rows
    first = min(peers(others), key=lambda row: float(row["median_us"]))
    share = float(ours["percent_of_ceiling"])
    limit = "" if math.isnan(share) else f"{share:.0f} %"
    return (
        f"| `{ours['op']}` | {ours['case'].partition(' float32 cpu')[0]} | {ms(ours)} "
        f"| {first['provider']} | {ms(first)} | **{float(first['times_ours']):.2f}** | {limit} |"
    )


def peers(rows: list[Row]) -> list[Row]:
    """The rows of what is neither ours nor the limit."""
    return [r for r in rows if r["provider"] != CEILING and not r["provider"].startswith("vaef")]


def convolutional(rows: list[Row]) -> str:
    """Networks with pixels, or that they are not measured; the other CPU rows do not matter."""
    if not CONVOLUTIONAL.exists():
        return "Not yet measured.\n"
    found = sorted(latest(CONVOLUTIONAL), key=lambda row: row["op"])
    lines = [
        "| op | case | ours, ms | GFLOP/s | of torch's product | best peer | its ms | times ours |",
        "|---|---|---:|---:|---:|---|---:|---:|",
    ]
    lines += [convolutional_line(group) for group in cases(found)]
    rates = sorted(float(row["gflop_per_s"]) for row in found if row["provider"] == CEILING)
    product = f"torch's product of 1024x512x512 {rates[0]:.0f} to {rates[-1]:.0f} GFLOP/s"
    where = machine(found[-1] | {"commit": ", ".join(dict.fromkeys(r["commit"] for r in found))})
    return "\n".join([*lines, "", f"{where} In the same run {product}.", ""])


def convolutional_line(rows: list[Row]) -> str:
    ours, *others = rows
    first = min(peers(others), key=lambda row: float(row["median_us"]))
    rate, share = float(ours["gflop_per_s"]), float(ours["percent_of_ceiling"])
    rates = "| |" if math.isnan(share) else f"| {rate:.0f} | {share:.0f} % |"
    return (
        f"| `{ours['op']}` | {ours['case'].replace(' float32 cpu', '')} | {ms(ours)} "
        f"{rates} {first['provider']} | {ms(first)} | **{float(first['times_ours']):.2f}** |"
    )


def tabled(path: Path, lines: Callable[[list[Row]], list[str]]) -> str:
    """The newest rows of a file of its own."""
    found = latest(path) if path.exists() else []
    return "\n".join([*lines(found), "", machine(found[-1]) if found else "", ""])


def gpu(rows: list[Row]) -> str:
    """The GPU's table, or that there is none; the CPU's rows do not matter."""
    if not GPU_RESULTS.exists():
        return "Not yet measured on a GPU.\n"
    found = of_newest_device(latest(GPU_RESULTS))
    lines = [
        "| op | case | ours | best peer | its time | times ours | of the ceiling |",
        "|---|---|---:|---|---:|---:|---:|",
    ]
    lines += [gpu_line(group) for group in cases(found) if group[0]["op"] != "ceiling"]
    reached = [ceiling(row) for row in found if row["op"] == "ceiling"]
    row = max(found, key=lambda row: row["date"])
    packages = f"torch {row['torch']}, triton {row['triton']}"
    commits = ", ".join(dict.fromkeys(row["commit"] for row in found))
    where = f"{row['device']}; {packages}, commit {commits}, {row['date'][:10]}."
    return "\n".join([*lines, "", f"{where} Ceilings of the last run: {', '.join(reached)}.", ""])


def gpu_line(rows: list[Row]) -> str:
    ours, *others = rows
    first = min(peers(others), key=lambda row: float(row["median_us"]), default=None)
    theirs = "| | | " if first is None else (
        f"| {first['provider']} | {duration(first)} | **{float(first['times_ours']):.2f}** "
    )  # fmt: skip
    share = float(ours["percent_of_ceiling"])
    limit = "" if math.isnan(share) else f"{share:.0f} %"
    case = ours["case"].removesuffix(" cuda")
    return f"| `{ours['op']}` | {case} | {duration(ours)} {theirs}| {limit} |"


def ceiling(row: Row) -> str:
    what, rate = row["case"].removesuffix(" cuda"), float(row["gflop_per_s"])
    if not rate:
        return f"{what} {float(row['gb_per_s']) / 1e3:.2f} TB/s"
    return f"{what} {rate / 1e3:.0f} TFLOP/s"


def duration(row: Row) -> str:
    us = float(row["median_us"])
    unit, size = next((u, s) for u, s in (("s", 1e6), ("ms", 1e3), ("µs", 0.0)) if us >= s)
    return f"{us / (size or 1):.3g} {unit}"


def ms(row: Row) -> str:
    value = float(row["median_us"]) / 1000
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


BLOCKS = {
    "headline": headline,
    "table": table,
    "engine": engine,
    "engine_small": engine_small,
    "convolutional": convolutional,
    "generic": lambda rows: tabled(GENERIC, lambda found: generic_table(cases(found))),
    "integrations": lambda rows: tabled(
        INTEGRATIONS, lambda found: integrations_table(cases(found))
    ),
    "sampler": lambda rows: tabled(SAMPLER, sampler_table),
    "gpu": gpu,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
