"""What the columns of a Parquet file hold: lists, images or numbers, and how they become rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from vaefast.data.dataset import Array
from vaefast.jobs.sources.images import decode, stacked
from vaefast.jobs.sources.rows import Raw

__all__ = ["Cells", "cells_of"]

Shape = tuple[int, ...]
EMPTY = "no value (null)"


class Cells(Protocol):
    """The columns that one row is made of."""

    columns: list[str]
    images: bool

    def row(self, batch: Any, k: int) -> Array | str:
        """Row k of a record batch as [*event], or why it is none."""
        ...

    def raw(self, batch: Any, start: int, event: Shape) -> Raw:
        """All rows of a record batch whose first has the index ``start``."""
        ...


class ImageCells:
    """Encoded images: a column of bytes, or of structures with a field ``bytes``."""

    images = True

    def __init__(self, column: str) -> None:
        self.columns = [column]

    def row(self, batch: Any, k: int) -> Array | str:
        return self._decoded(batch, k, None)

    def raw(self, batch: Any, start: int, event: Shape) -> Raw:
        rows = [(start + k, self._decoded(batch, k, event)) for k in range(batch.num_rows)]
        return stacked(rows, event)

    def _decoded(self, batch: Any, k: int, event: Shape | None) -> Array | str:
        cell = batch.column(0)[k].as_py()
        data = cell.get("bytes") if isinstance(cell, dict) else cell
        return EMPTY if data is None else decode(data, event)


class ListCells:
    """Lists of numbers, nested up to three deep: [D], [H, W] or [C, H, W]."""

    images = False

    def __init__(self, column: str) -> None:
        self.columns = [column]

    def row(self, batch: Any, k: int) -> Array | str:
        cell = batch.column(0).slice(k, 1)
        if cell.null_count:
            return EMPTY
        found = _dense(cell)
        if found is None:
            return "lists of unequal lengths, or a null among the values"
        return found.reshape(_as_event(found.shape[1:]))

    def raw(self, batch: Any, start: int, event: Shape) -> Raw:
        found = _dense(batch.column(0))
        index = np.arange(start, start + batch.num_rows)
        if found is not None and _as_event(found.shape[1:]) == tuple(event):
            return Raw(found.reshape(len(found), *event), index, {})
        return stacked([(int(k), self.row(batch, int(k) - start)) for k in index], event)


class NumberCells:
    """A column per entry of a flat input [D]."""

    images = False

    def __init__(self, columns: list[str]) -> None:
        self.columns = columns

    def row(self, batch: Any, k: int) -> Array | str:
        found = self.raw(batch.slice(k, 1), 0, (len(self.columns),))
        return found.failed.get(0) or found.x[0]

    def raw(self, batch: Any, start: int, event: Shape) -> Raw:
        x = np.empty((batch.num_rows, len(self.columns)), np.float64)
        failed: dict[int, str] = {}
        for k, name in enumerate(self.columns):
            column = batch.column(k)
            x[:, k] = column.to_numpy(zero_copy_only=False)
            if column.null_count:
                empty = np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))
                for row in empty:
                    failed.setdefault(start + int(row), f"column {name!r}: {EMPTY}")
        index = np.arange(start, start + len(x))
        good = np.array([k not in failed for k in index], bool)
        return Raw(x[good], index[good], failed)


def cells_of(schema: Any, name: str, column: str | None, labels: str | None) -> Cells:
    """What of a file's columns the inputs are.

    Args:
        schema: of the file.
        name: of the file, for messages.
        column: what holds the inputs; None for the only column of lists or images, else all.
        labels: a column that holds none of the inputs.

    Raises:
        ValueError: there is no such column, or several may be meant.
    """
    names = [field.name for field in schema if field.name != labels]
    if column is not None:
        if column not in names:
            raise ValueError(f"{name} has no column {column!r}, got {', '.join(schema.names)}")
        names = [column]
    whole = [each for each in names if _kind(schema.field(each).type) in ("list", "image")]
    if len(whole) > 1:
        raise ValueError(
            f"{name} has {len(whole)} columns of lists or images; name that of the inputs, as in "
            f"{name}:{whole[0]}"
        )
    if whole:
        image = _kind(schema.field(whole[0]).type) == "image"
        return ImageCells(whole[0]) if image else ListCells(whole[0])
    other = next((each for each in names if _kind(schema.field(each).type) != "number"), None)
    if other is not None or not names:
        raise ValueError(
            f"{name}: column {other!r} must hold numbers, lists of them or images, got "
            f"{schema.field(other).type}; drop it, or take it for labels: --labels {other}"
            if other is not None
            else f"{name} has no column for the inputs beside the labels"
        )
    return NumberCells(names)


def _kind(kind: Any) -> str:
    import pyarrow as pa

    is_a = pa.types
    if is_a.is_list(kind) or is_a.is_large_list(kind) or is_a.is_fixed_size_list(kind):
        return "list"
    if is_a.is_struct(kind):
        return "image" if kind.get_field_index("bytes") >= 0 else "other"
    if is_a.is_binary(kind) or is_a.is_large_binary(kind):
        return "image"
    number = is_a.is_integer(kind) or is_a.is_floating(kind) or is_a.is_boolean(kind)
    return "number" if number else "other"


def _dense(array: Any) -> Array | None:
    """Equal lists without nulls as [n, ...], else None."""
    if array.null_count:
        return None
    if _kind(array.type) != "list":
        return array.to_numpy(zero_copy_only=False)
    lengths = np.unique(array.value_lengths().to_numpy(zero_copy_only=False))
    if len(lengths) > 1:
        return None
    values = _dense(array.flatten())
    if values is None:
        return None
    return values.reshape(len(array), int(lengths.sum()), *values.shape[1:])


def _as_event(shape: Sequence[int]) -> Shape:
    """[H, W] is one channel of an image."""
    return (1, *shape) if len(shape) == 2 else tuple(shape)
