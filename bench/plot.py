"""The picture of README.md's headline cases."""

from __future__ import annotations

from pathlib import Path

__all__ = ["plot"]

PLOT = Path("docs/images/pgd_step.svg")
TICKS = (50, 100, 200, 500, 1000, 2000, 5000)  # µs


def plot(cases: list[tuple[str, list[dict[str, str]]]]) -> None:
    """Microseconds a call by provider, as horizontal bars: a title and its rows for each case."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "vaefast"
    figure, axes = plt.subplots(1, 2, figsize=(9, 2.8), sharey=True, sharex=True)
    for axis, (title, rows) in zip(axes, cases):
        chosen = rows[::-1]
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
