"""``python -m vaefast.bench.gpu.plots FILE.csv FOLDER``: ours beside the peers, as one picture."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from vaefast.bench.readme import Row, cases, latest, of_newest_device

__all__ = ["main", "plot"]

OURS, THEIRS = "#0072b2", "#999999"


def main(arguments: list[str]) -> int:
    path, folder = Path(arguments[0]), Path(arguments[1])
    if importlib.util.find_spec("matplotlib") is None:
        print("no plots: matplotlib is not installed")
        return 0
    if not path.exists():
        print(f"no plots: {path} is not there")
        return 1
    plot(of_newest_device(latest(path)), folder / f"{path.stem}.svg")
    return 0


def plot(rows: list[Row], to: Path) -> None:
    """Every provider's time as a multiple of ours, a group of bars a case."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "vaefast"
    groups = [group for group in cases(rows) if group[0]["op"] != "ceiling"]
    count = sum(len(group) + 1 for group in groups)
    height = 0.8 + 0.16 * count
    figure, axis = plt.subplots(figsize=(10, height))
    axis.set_ylim(count + 0.5 * len(groups), -1)
    y, labels = 0.0, []
    for group in groups:
        place = axis.get_yaxis_transform()
        axis.text(0.01, y, title(group[0]), fontsize=6, weight="bold", va="center", transform=place)
        for row in group:
            y += 1
            ours = row["provider"].startswith("vaefast")
            axis.barh(y, float(row["times_ours"]), color=OURS if ours else THEIRS)
            labels.append((y, row["provider"]))
        y += 1.5
    axis.set_yticks([at for at, _ in labels], [label for _, label in labels], fontsize=6)
    axis.set_xscale("log")
    axis.set_xlabel("time, multiples of ours (log scale)")
    axis.spines[["top", "right"]].set_visible(False)
    figure.subplots_adjust(left=0.25, right=0.98, top=1 - 0.2 / height, bottom=0.5 / height)
    figure.savefig(to, metadata={"Date": None})


def title(row: Row) -> str:
    share = float(row["percent_of_ceiling"])
    limit = "" if share != share else f", {share:.0f} % of the ceiling"
    return f"{row['op']}  {row['case']}: {float(row['median_us']) / 1e3:,.3g} ms{limit}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
