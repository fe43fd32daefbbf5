"""Regenerate README.md's tables and plots from the committed measurements.

``python -m vaefast.bench.readme`` in a checkout; ``--check`` only says whether they are current.
"""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path

__all__ = ["main"]

RESULTS = Path("bench/results/cpu.csv")
PLOT = Path("docs/images/pgd_step.svg")
CASES = ("linf B=256 D=3072 float32 cpu", "l2 B=256 D=3072 float32 cpu")
TICKS = (50, 100, 200, 500, 1000, 2000, 5000)  # µs
BLOCK = re.compile(r"(<!-- bench:(\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

Row = dict[str, str]


def main(arguments: list[str]) -> int:
    """Rewrite the marked blocks of README.md; with ``--check`` return 1 where they are stale."""
    rows = latest(RESULTS)
    readme = Path("README.md")
    before = readme.read_text()
    after = BLOCK.sub(lambda m: m[1] + BLOCKS[m[2]](rows) + m[3], before)
    if "--check" in arguments:
        return int(before != after)
    readme.write_text(after)
    plot(rows)
    return 0


def latest(path: Path) -> list[Row]:
    """The rows of the newest run in a file that runs are appended to."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    newest: dict[tuple[str, str, str], Row] = {}
    for row in rows:
        newest[row["op"], row["case"], row["provider"]] = row
    return list(newest.values())


def of_case(rows: list[Row], case: str) -> list[Row]:
    return [row for row in rows if row["case"] == case]


def headline(rows: list[Row]) -> str:
    """The opening sentence, with its two numbers."""
    by_name = {row["provider"]: row for row in of_case(rows, CASES[0])}
    compiled = float(by_name["torch.compile"]["times_ours"])
    share = float(by_name["vaefast (out=)"]["percent_of_ceiling"])
    return (
        f"One fused PGD update runs **{compiled:.1f} times** as fast as torch.compile's and at "
        f"**{share:.0f} %** of the memory bandwidth that `torch.lerp(out=)` reaches in the same "
        "run.\n"
    )


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
        f"{row['device']}; Python {row['python']}, torch {row['torch']}, commit {row['commit']}, "
        f"{row['date'][:10]}. Medians and quartiles of interleaved rounds, default malloc; "
        "`torch.lerp(out=)` only reads and writes the same bytes."
    )


def plot(rows: list[Row]) -> None:
    """Microseconds a call by provider, as horizontal bars."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "vaefast"
    figure, axes = plt.subplots(1, 2, figsize=(9, 2.8), sharey=True, sharex=True)
    for axis, case, title in zip(axes, CASES, ("ℓ∞ step", "ℓ2 step")):
        chosen = of_case(rows, case)[::-1]
        names = [row["provider"] for row in chosen]
        colours = ["#0072b2" if name.startswith("vaefast") else "#999999" for name in names]
        axis.barh(names, [float(row["median_us"]) for row in chosen], color=colours)
        axis.set_xscale("log")
        axis.set_xticks(TICKS, [f"{tick:,}" for tick in TICKS])
        axis.minorticks_off()
        axis.set_title(f"{title}, 256 images of 3072 entries")
        axis.set_xlabel("µs a call (log scale)")
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    PLOT.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PLOT, metadata={"Date": None})


BLOCKS = {"headline": headline, "table": table}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
