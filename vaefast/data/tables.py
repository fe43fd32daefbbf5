"""Tables: .csv and .parquet files of numeric columns."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from vaefast.data.dataset import Array, Arrays, reading

__all__ = ["read_column", "read_table"]

Columns = dict[str, list[Any]]  # cells by name, all of one length


def read_table(path: Path, labels: str | None = None) -> Arrays:
    """Every column as an input's entry: x [n, D] float64.

    Args:
        path: of a .csv (comma, semicolon or tab; its first line may be a header) or .parquet.
        labels: name of a column that holds the labels and is left out of x.

    Raises:
        ValueError: an unreadable file, or a column that is not numeric; the message names it.
    """
    columns = _read(path, header=None)
    if "" in columns:
        raise ValueError(
            f"{path} has a column without a name, as an index has that pandas saved; save it with "
            "index=False"
        )
    if labels is not None:
        _pick(path, columns, labels)
    x = [_numbers(path, name, cells) for name, cells in columns.items() if name != labels]
    if not x:
        raise ValueError(f"{path} has no numeric columns")
    return Arrays(np.stack(x, axis=1))


def read_column(path: Path, name: str | None, rows: int) -> Array:
    """One column as it is, [n]: the named one or the only one.

    A .txt, or a .csv from which no column is named, has a header where it has one line more than
    ``rows``.
    """
    if path.suffix.lower() == ".txt":
        with reading(path, "text file"):
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        cells = [line.strip() for line in lines if line.strip()]
        return np.array(cells[len(cells) == rows + 1 :], dtype=str)
    columns = _read(path, header=True if name else None)
    if name is None and len(columns) != 1:
        first = next(iter(columns), "column")
        raise ValueError(
            f"{path} has {len(columns)} columns; name that of the labels, as in {path.name}:{first}"
        )
    if name is None and path.suffix.lower() == ".csv":
        columns = _without_header(path, rows)
    cells = next(iter(columns.values())) if name is None else _pick(path, columns, name)
    return np.array(cells)


def _without_header(path: Path, rows: int) -> Columns:
    columns = _read(path, header=False)
    length = len(next(iter(columns.values()), []))
    return _read(path, header=True) if length == rows + 1 else columns


def _pick(path: Path, columns: Columns, name: str) -> list[Any]:
    if name not in columns:
        raise ValueError(f"{path} has no column {name!r}, got {', '.join(map(str, columns))}")
    return columns[name]


def _read(path: Path, *, header: bool | None) -> Columns:
    """The columns by name; without a header they are called 1, 2, ..."""
    if path.suffix.lower() == ".parquet":
        import pyarrow.parquet as pq

        with reading(path, "parquet file"):
            table = pq.read_table(path)
            return {name: table[name].to_pylist() for name in table.column_names}
    with reading(path, "table of comma-separated values"):
        text = path.read_text(encoding="utf-8-sig")
        lines = [row for row in csv.reader(text.splitlines(), delimiter=_delimiter(text)) if row]
        uneven = next((k for k, row in enumerate(lines) if len(row) != len(lines[0])), None)
        if uneven is not None:
            raise ValueError(
                f"line {uneven + 1} has {len(lines[uneven])} values, line 1 has {len(lines[0])}"
            )
    if not lines:
        raise ValueError(f"{path} is empty")
    if header is None:
        header = any(_number(cell) is None for cell in lines[0])
    names = [cell.strip() for cell in lines[0]] if header else _counted(len(lines[0]))
    rows = lines[1:] if header else lines
    if len(set(names)) < len(names):
        raise ValueError(f"{path} has two columns of one name; rename one")
    return {name: [row[k].strip() for row in rows] for k, name in enumerate(names)}


def _delimiter(text: str) -> str:
    first = text.partition("\n")[0]
    return max(",;\t", key=first.count)


def _counted(width: int) -> list[str]:
    return [str(k + 1) for k in range(width)]


def _number(cell: Any) -> float | None:
    try:
        return float(cell)
    except (TypeError, ValueError):
        return None


def _numbers(path: Path, name: str, cells: list[Any]) -> Array:
    numbers = [_number(cell) for cell in cells]
    if None in numbers:
        row = numbers.index(None)
        got = repr(cells[row]) if cells[row] not in ("", None) else "an empty cell"
        raise ValueError(
            f"{path}: column {name!r} must hold numbers, got {got} in row {row}; drop the column "
            f"or the row, or take the column for labels: --labels {path.name}:{name}"
        )
    return np.array(numbers, dtype=np.float64)
