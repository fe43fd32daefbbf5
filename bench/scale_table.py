"""The tables and the figure of docs/scale.md, from rows of :mod:`vaefast.bench.scale`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vaefast.bench.scale import Assumed, Costs, Row

__all__ = [
    "assumptions_table",
    "costs_table",
    "figure",
    "files_table",
    "limits_table",
    "sizes_table",
    "workers_table",
]

SIZES = (256, 1024, 4096, 16384, 65536)


def sizes_table(found: list[Row]) -> list[str]:
    head = ["work", "inputs", "shard", "files", "hours", "of the ideal", "by the formula", "driver"]
    head += ["metadata", "reading", "tail", "retried"]
    cells = [
        [
            one.case.removeprefix("sizes "), _power(one.rows), f"{one.size:,}",
            f"{-(-one.rows // one.size):,}", f"{one.hours:.3g}", _share(one.efficiency),
            _share(one.formula), _share(one.driver), _share(one.metadata), _share(one.storage),
            _share(one.tail), f"{one.retried}",
        ]
        for one in found
        if one.case.startswith("sizes ")
    ]  # fmt: skip
    return _table(head, cells, left=1)


def assumptions_table(found: list[Row], assumed: dict[str, Assumed]) -> list[str]:
    head = [
        "assumption",
        "source",
        "value",
        "best shard",
        "minutes",
        "of the ideal",
        "busiest server",
    ]
    cells = []
    for one in found:
        if one.case not in assumed:
            continue
        about = assumed[one.case]
        servers = {"driver": one.driver, "metadata": one.metadata, "reading": one.storage}
        busiest = max(servers, key=lambda name: servers[name])
        value = f"{one.value:.3g} {about.unit}".strip()
        line = [about.what, about.source, value, f"{one.size:,}", f"{60 * one.hours:.3g}"]
        cells.append([*line, _share(one.efficiency), f"{busiest} {_share(servers[busiest])}"])
    return _table(head, cells, left=2)


def workers_table(found: list[Row]) -> list[str]:
    head = ["GPUs", "inputs", "hours", "of the ideal", "driver", "metadata"]
    cells = [
        [f"{one.workers:,}", _power(one.rows), f"{one.hours:.3g}"]
        + [_share(value) for value in (one.efficiency, one.driver, one.metadata)]
        for one in found
        if one.case == "workers"
    ]
    return _table(head, cells)


def files_table(costs: dict[str, float]) -> list[str]:
    """Of metadata alone: nothing here is simulated."""
    head = ["inputs", "shard", "files", "checksums", "names, looked for", "checked at a resume"]
    head += ["table", "merged"]
    line, name = costs["bytes of a checksum's line"], costs["name of a shard, looked for"]
    check, merge = costs["shard of 256 rows, checked at a resume"], costs["row, merged"]
    a_row = costs["bytes of a shard, 65536 rows"] / 65536
    cells = [
        [
            _power(n), f"{size:,}", f"{(files := -(-n // size)):,}", _bytes(line * files),
            _seconds(name * files), _seconds(check * files), _bytes(a_row * n), _seconds(merge * n),
        ]
        for n in (10**7, 10**9)
        for size in SIZES
    ]  # fmt: skip
    return _table(head, cells)


def limits_table(of: dict[str, Costs]) -> list[str]:
    """How many GPUs fill each server, by the formula: a shard's time over its service."""
    head = ["work", "shard", "driver", "metadata", "reading float32", "reading bytes"]
    cells = []
    for work, costs in of.items():
        data = costs.storage * costs.row / costs.bytes_in
        for size in SIZES:
            shard = size * costs.row + costs.per_shard
            counts = [shard / costs.dispatch, shard / (costs.lease + costs.write), data, 4 * data]
            cells.append([work, f"{size:,}", *(f"{count:,.0f}" for count in counts)])
    return _table(head, cells, left=1)


def costs_table(found: dict[str, float]) -> list[str]:
    def shown(case: str, value: float) -> str:
        if "FLOP" in case:
            return f"{value / 1e9:.3g} GFLOP"
        return _bytes(value) if "bytes" in case else _seconds(value)

    return _table(["measured", "value"], [[c, shown(c, v)] for c, v in found.items()], left=1)


def _table(head: list[str], cells: list[list[str]], left: int = 0) -> list[str]:
    rule = "|" + left * "---|" + (len(head) - left) * "---:|"
    return [f"| {' | '.join(head)} |", rule, *(f"| {' | '.join(line)} |" for line in cells)]


def _power(n: int) -> str:
    digits = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
    exponent = int(math.log10(n))
    factor = n / 10**exponent
    return ("" if factor == 1 else f"{factor:.3g}·") + "10" + str(exponent).translate(digits)


def _share(value: float) -> str:
    return f"{100 * value:.3g} %"


def _bytes(value: float) -> str:
    unit = next((u for u in ("GB", "MB", "kB") if value >= _UNITS[u]), "bytes")
    return f"{value / _UNITS[unit]:.3g} {unit}"


_UNITS = {"bytes": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9}


def _seconds(value: float) -> str:
    if value >= 120:
        return f"{value / 60:.3g} min"
    return f"{value:.3g} s" if value >= 1 else f"{1e3 * value:.3g} ms"


def figure(found: list[Row], path: Path) -> None:
    """Shares of the ideal by shard size, simulated and by the formula; loads by workers."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "vaefast"
    drawing, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
    kinds = sorted({(one.case, one.rows) for one in found if one.case.startswith("sizes ")})
    for colour, (case, n) in zip(("#0072b2", "#56b4e9", "#d55e00", "#e69f00"), kinds):
        points = [one for one in found if (one.case, one.rows) == (case, n)]
        sizes = [one.size for one in points]
        label = f"{case.removeprefix('sizes ')}, {_power(n)}"
        left.plot(sizes, [one.efficiency for one in points], "o", color=colour, label=label)
        left.plot(sizes, [one.formula for one in points], "-", color=colour)
    left.set_xscale("log", base=2)
    left.set_xlabel("rows of a shard; lines: the formula")
    left.set_ylabel("of the ideal throughput")
    left.set_ylim(0, 1.02)
    left.legend(fontsize=8)
    many = [one for one in found if one.case == "workers"]
    for name, colour in (("driver", "#0072b2"), ("metadata", "#d55e00"), ("efficiency", "#999999")):
        label = "of the ideal" if name == "efficiency" else f"{name} busy"
        values = [getattr(one, name) for one in many]
        right.plot([one.workers for one in many], values, "o-", color=colour, label=label)
    right.set_xscale("log", base=4)
    right.set_xticks([one.workers for one in many], [f"{one.workers:,}" for one in many])
    right.set_xlabel("GPUs, MLP, shards of 4096 rows")
    right.legend(fontsize=8)
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    drawing.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    drawing.savefig(path, metadata={"Date": None})
    plt.close(drawing)
