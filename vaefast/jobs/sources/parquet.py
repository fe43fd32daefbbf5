"""Parquet files: a column of lists, a column of images, or columns of numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vaefast.data.dataset import Array, reading
from vaefast.data.labels import as_classes
from vaefast.data.values import UNIT, Box, check_inputs
from vaefast.jobs.sources.arrays import finite_for_bytes
from vaefast.jobs.sources.cells import cells_of
from vaefast.jobs.sources.content import File, files_digest, needed
from vaefast.jobs.sources.images import first_shape
from vaefast.jobs.sources.labels import Labels, compact, open_labels
from vaefast.jobs.sources.rows import Raw, RawSource

__all__ = ["ParquetSource"]

BATCH = 512  # rows that are decoded at once


class Group(NamedTuple):
    """A row group: its file, its number there, the index of its first row, and its rows."""

    file: int
    number: int
    start: int
    rows: int


class ParquetSource(RawSource):
    """Rows of Parquet files of one schema, in the order of the files.

    A shard decodes its own rows. Those before it in its row group are passed over, once where
    shards are read in order, so groups larger than a shard are slow for several workers.

    Args:
        paths: of the files.
        box: of valid entries.
        event: of one row; by default that of the first readable one.
        column: what holds the inputs; by default the only column of lists or images, else all
            columns of numbers.
        labels: a column of the files, or a file of labels.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        box: Box | None,
        event: tuple[int, ...] | None,
        column: str | None,
        labels: str | None,
    ) -> None:
        self._files = [File.of(path) for path in paths]
        self._groups, self.length, schema = _survey(paths)
        self.box, name = box or UNIT, str(paths[0])
        if not self.length:
            raise ValueError(f"{name} has no rows")
        own = labels if labels in schema.names else None
        self._cells = cells_of(schema, name, column, own)
        self.y, self.classes = self._labels(own) if own else open_labels(labels, self.length)
        self._stream: _Stream | None = None
        self.event_shape = event or first_shape(name, self.length, self._probe)
        self._check(name)
        self.description = {"kind": "path", "column": column}
        self.description["path"] = str(
            (paths[0] if len(paths) == 1 else paths[0].parent).absolute()
        )

    @property
    def fingerprint(self) -> str:  # type: ignore[override]
        return files_digest(self._files, self._cells.columns, self.box, self.event_shape)

    def raw(self, start: int, stop: int) -> Raw:
        parts = [self._part(at, end, batch) for at, end, batch in self._batches(start, stop)]
        failed = {index: why for part in parts for index, why in part.failed.items()}
        kinds = {part.x.dtype for part in parts if len(part.x)} or {parts[0].x.dtype}
        whole = [part.x for part in parts if part.x.dtype in kinds]
        return Raw(np.concatenate(whole), np.concatenate([p.index for p in parts]), failed)

    def _part(self, at: int, end: int, batch: Any) -> Raw:
        if not isinstance(batch, str):
            return self._cells.raw(batch, at, self.event_shape)
        empty = np.zeros((0, *self.event_shape), np.float32)
        return Raw(empty, np.zeros(0, np.int64), dict.fromkeys(range(at, end), batch))

    def _check(self, name: str) -> None:
        """Kind and shape of the first readable row, as an array of such rows would be checked."""
        found = next(
            (x for k in range(min(self.length, BATCH)) if not isinstance(x := self._probe(k), str)),
            None,
        )
        if found is not None:
            some = found if found.dtype.kind in "iu" else np.zeros_like(found)
            check_inputs(some[None], f"{name}: x")
            finite_for_bytes(found.dtype, self.box, name)

    def _probe(self, index: int) -> Array | str:
        ((_, _, batch),) = self._batches(index, index + 1)
        return batch if isinstance(batch, str) else self._cells.row(batch, 0)

    def _batches(self, start: int, stop: int) -> Iterator[tuple[int, int, Any]]:
        """Record batches that make up the rows, each between its first index and its end.

        In place of one that is damaged comes the reason, for what is left of its row group.
        """
        at = start
        while at < stop:
            group = self._group_of(at)
            try:
                first, batch = self._batch(group, at)
                end = min(stop, first + batch.num_rows)
                batch = batch.slice(at - first, end - at)
            except ValueError as error:
                self._stream, end = None, min(stop, group.start + group.rows)
                batch = f"its row group cannot be read: {str(error).partition(': ')[2]}"
            yield at, end, batch
            at = end

    def _batch(self, group: Group, at: int) -> tuple[int, Any]:
        """The batch that holds a row, and the index of its first row."""
        if self._stream is None or not self._stream.reaches(group, at):
            file = self._files[group.file]
            file.check()
            self._stream = _Stream(group, file.path, self._cells.columns)
        return self._stream.at(at)

    def _group_of(self, index: int) -> Group:
        starts = [group.start for group in self._groups]
        return self._groups[int(np.searchsorted(starts, index, side="right")) - 1]

    def _labels(self, column: str) -> Labels:
        parts = []
        for file in self._files:
            with reading(file.path, "parquet file"):
                for batch in _open(file.path).iter_batches(1 << 16, columns=[column]):
                    parts.append(np.array(batch.column(0).to_pylist()))
        return compact(as_classes(np.concatenate(parts), f"column {column!r}"))


class _Stream:
    """The batches of a row group one after the other; it goes forward only."""

    def __init__(self, group: Group, path: Path, columns: list[str]) -> None:
        self.group, self.path, self.first = group, path, group.start
        self._columns = columns
        self._rest = _open(path).iter_batches(BATCH, row_groups=[group.number], columns=columns)
        self._batch = self._next()

    def reaches(self, group: Group, index: int) -> bool:
        return group == self.group and self.first <= index

    def at(self, index: int) -> tuple[int, Any]:
        """The batch that holds a row, and the index of its first row."""
        while self.first + self._batch.num_rows <= index:
            self.first += self._batch.num_rows
            self._batch = self._next()
        return self.first, self._batch

    def _next(self) -> Any:
        with reading(self.path, "parquet file"):
            return next(self._rest).select(self._columns)


def _open(path: Path) -> Any:
    """Mapped into memory, so that a row group's bytes are never copied as a whole."""
    parquet = needed("pyarrow.parquet", "jobs")
    return parquet.ParquetFile(path, memory_map=True, pre_buffer=False)


def _survey(paths: Sequence[Path]) -> tuple[list[Group], int, Any]:
    """The row groups of all files, the number of rows, and the schema."""
    groups, rows, schema = [], 0, None
    for k, path in enumerate(paths):
        with reading(path, "parquet file"):
            file = _open(path)
        if schema is not None and file.schema_arrow != schema:
            raise ValueError(f"{path} has other columns than {paths[0]}; write them alike")
        schema = file.schema_arrow
        for number in range(file.metadata.num_row_groups):
            if length := file.metadata.row_group(number).num_rows:
                groups.append(Group(k, number, rows, length))
                rows += length
    return groups, rows, schema
