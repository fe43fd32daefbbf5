"""What a run's table says, in one pass over it and in memory that does not grow with it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from vaefast.report.run_spread import Spread

__all__ = ["KINDS", "Failure", "Measured", "RunNumbers", "Worst", "scan"]

BATCH = 1 << 15  # rows that are read at once
SHOWN = 8  # worst inputs
KINDS = 100  # of reasons that are told apart
EXAMPLES = 5  # indices of each
CLASSES = 100  # that are told apart
LOWER_IS_WORSE = {"margin": True, "p_lower": True, "objective": False}
COUNTED = ("index", "label", "failed", "reason")


class Worst(NamedTuple):
    """An input with one of the worst values."""

    index: int  # type: ignore[assignment]  # of the same name as tuple's search
    value: float
    label: int | None
    reason: str


@dataclass
class Failure:
    """Rows of one kind of reason: how many, the first of them, and one reason in full."""

    reason: str
    count: int = 0
    first: list[int] = field(default_factory=list)


@dataclass
class Measured:
    """A column of numbers.

    Attributes:
        name: of the column, without its radius.
        r: the radius that its name ends in, "" where there is one for all.
        spread: over all rows that did not fail.
        classes: the same of each class; empty without labels.
        zero: rows whose value is 0 or below.
    """

    name: str
    r: str
    spread: Spread = field(default_factory=Spread)
    classes: dict[int, Spread] = field(default_factory=dict)
    zero: int = 0


@dataclass
class RunNumbers:
    """A whole run.

    Attributes:
        rows: inputs.
        failed: rows without a result.
        labelled: whether rows have labels.
        columns: numbers by the name of their column.
        failures: by kind of reason, the most frequent first.
        notes: the same of rows that have a result and a reason: why they abstained.
        worst: inputs with the worst value of the first of ``columns`` that can be good or bad.
        ranked: the name of that column, "" where there is none.
    """

    rows: int = 0
    failed: int = 0
    labelled: bool = False
    columns: dict[str, Measured] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    notes: list[Failure] = field(default_factory=list)
    worst: list[Worst] = field(default_factory=list)
    ranked: str = ""

    def of(self, name: str) -> list[Measured]:
        """The columns of one name, at every radius, in the order of the table."""
        return [column for column in self.columns.values() if column.name == name]


def scan(path: str | os.PathLike[str]) -> RunNumbers:
    """Read a table of :func:`vaefast.jobs.merge_shards` once."""
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path, pre_buffer=False)
    numeric = [f.name for f in file.schema_arrow if _is_number(f.type) and f.name not in COUNTED]
    found = RunNumbers(labelled="label" in file.schema_arrow.names)
    found.columns = {name: Measured(*_radius(name)) for name in numeric}
    found.ranked = next((n for n, c in found.columns.items() if c.name in LOWER_IS_WORSE), "")
    failures: dict[str, Failure] = {}
    notes: dict[str, Failure] = {}
    columns = [name for name in COUNTED if name in file.schema_arrow.names] + numeric
    for batch in _batches(file, columns):
        failed = batch["failed"]
        found.rows += len(failed)
        found.failed += int(failed.sum())
        for name in numeric:
            _add(found.columns[name], batch[name], ~failed, batch.get("label"))
        _reasons(failures, batch, failed)
        _reasons(notes, batch, ~failed & (batch["reason"] != ""))
        if found.ranked:
            found.worst = _worst(found, batch)
    found.failures, found.notes = (
        sorted(kinds.values(), key=lambda kind: (-kind.count, kind.first))
        for kinds in (failures, notes)
    )
    return found


def _is_number(kind: Any) -> bool:
    import pyarrow as pa

    is_a = pa.types
    return is_a.is_integer(kind) or is_a.is_floating(kind)


def _radius(name: str) -> tuple[str, str]:
    """``margin_r4`` is the margin at r = 4."""
    found = re.fullmatch(r"(.+)_r([\d.e+-]+)", name)
    return (found[1], found[2]) if found else (name, "")


def _batches(file: Any, columns: list[str]) -> Iterator[dict[str, np.ndarray]]:
    for batch in file.iter_batches(BATCH, columns=columns):
        arrays = {
            name: batch.column(name).to_numpy(zero_copy_only=False) for name in batch.schema.names
        }
        arrays.setdefault("failed", np.zeros(batch.num_rows, bool))
        arrays.setdefault("reason", np.full(batch.num_rows, "", object))
        yield arrays | {"failed": arrays["failed"].astype(bool)}


def _add(column: Measured, values: np.ndarray, good: np.ndarray, label: np.ndarray | None) -> None:
    values = values.astype(np.float64)
    column.spread.add(values[good])
    column.zero += int((values[good] <= 0).sum())
    if label is None or column.name not in LOWER_IS_WORSE:
        return
    for each in np.unique(label[good & (label >= 0)]).tolist():
        if each in column.classes or len(column.classes) < CLASSES:
            column.classes.setdefault(each, Spread()).add(values[good & (label == each)])


def _reasons(kinds: dict[str, Failure], batch: dict[str, np.ndarray], rows: np.ndarray) -> None:
    """Count reasons that differ in their figures only as one kind."""
    for index, reason in zip(batch["index"][rows], batch["reason"][rows], strict=True):
        reason = str(reason or "no reason was given")
        kind = re.sub(r"[\d.]+(?:e[+-]?\d+)?", "#", reason)
        if kind not in kinds and len(kinds) >= KINDS:
            kind, reason = "other", "other reasons"
        found = kinds.setdefault(kind, Failure(reason))
        found.count += 1
        if len(found.first) < EXAMPLES:
            found.first.append(int(index))


def _worst(found: RunNumbers, batch: dict[str, np.ndarray]) -> list[Worst]:
    """The worst rows so far; those of one value by their index."""
    lower = LOWER_IS_WORSE[found.columns[found.ranked].name]
    values = batch[found.ranked].astype(np.float64)
    rows = np.flatnonzero(~batch["failed"] & ~np.isnan(values))
    key = values[rows] if lower else -values[rows]
    rows = rows[np.argsort(key, kind="stable")[:SHOWN]]
    label, reason = batch.get("label"), batch["reason"]
    new = [
        Worst(
            int(batch["index"][k]),
            float(values[k]),
            None if label is None else int(label[k]),
            str(reason[k] or ""),
        )
        for k in rows
    ]
    sign = 1.0 if lower else -1.0
    return sorted([*found.worst, *new], key=lambda one: (sign * one.value, one.index))[:SHOWN]
