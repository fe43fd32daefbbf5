"""The table of a run: all shards in one Parquet file, a group of rows at a time."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vaefast.data.dataset import reading
from vaefast.runtime.durable import sync_folder

__all__ = ["GROUP", "merge_shards", "table_metadata"]

KEY = b"vaefast"  # of the metadata of a file
GROUP = 1 << 16  # rows of a row group, whatever the size of a shard
NAMED = 10  # ranges that a message names
OPTIONS = {"compression": "zstd", "write_page_checksum": True, "data_page_size": 1 << 20}


def merge_shards(
    paths: Sequence[Path],
    out: str | os.PathLike[str],
    metadata: Mapping[str, Any],
    *,
    rows: int | None = None,
    fields: Mapping[str, Mapping[str, str]] | None = None,
) -> int:
    """Write the rows of all shards into one file, in the order of their indices.

    The file takes its place when it is whole. Its bytes depend on the rows, the metadata and the
    version of pyarrow alone: row groups have one size, and no more than one is in memory.

    Args:
        paths: of the shards, in any order; each holds ascending ``index``.
        out: of the table.
        metadata: plain values for the file: fingerprint, guarantee, versions.
        rows: how many there must be, from index 0; None for up to the last that is there.
        fields: unit and meaning of columns, by name.

    Returns:
        The number of rows.

    Raises:
        ValueError: rows are lost or there twice, which the message names; shards of different
            columns; an unreadable shard.
        OSError: the table cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = Path(out)
    ordered = _in_order(paths)
    schema = _schema(ordered, fields or {})
    about = json.dumps(dict(metadata), sort_keys=True, ensure_ascii=False).encode()
    schema = schema.with_metadata({KEY: about})
    order, beside = _Order(), out.with_name(f".{out.name}.part")
    try:
        with pq.ParquetWriter(beside, schema, **OPTIONS) as writer:
            for group in _groups(_batches(ordered, order), GROUP):
                table = pa.Table.from_batches(group).combine_chunks()
                writer.write_table(table.cast(schema), row_group_size=GROUP)
        order.finish(rows)
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        beside.replace(out)
    finally:
        beside.unlink(missing_ok=True)
    sync_folder(out.absolute().parent)
    return order.next


def table_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What :func:`merge_shards` was given for a table, or a shard says of itself.

    Raises:
        ValueError: the file is no such table; one line.
    """
    import pyarrow.parquet as pq

    with reading(Path(path), "table of vaefast"):
        found = json.loads((pq.read_schema(path).metadata or {}).get(KEY, b"null"))
        if not isinstance(found, dict):
            raise ValueError("it has no metadata of vaefast")
    return found


def _in_order(paths: Sequence[Path]) -> list[Path]:
    """The shards by their first index, as their own statistics say it."""
    import pyarrow.parquet as pq

    if not paths:
        raise ValueError("there are no shards to merge; run `vaefast jobs resume` first")
    firsts = []
    for path in paths:
        with reading(path, "shard"):
            metadata = pq.read_metadata(path)
            groups = [metadata.row_group(k) for k in range(metadata.num_row_groups)]
            column = metadata.schema.names.index("index")
            found = [group.column(column).statistics.min for group in groups if group.num_rows]
        if found:
            firsts.append((min(found), str(path), path))
    return [path for _, _, path in sorted(firsts)]


def _schema(paths: Sequence[Path], fields: Mapping[str, Mapping[str, str]]) -> Any:
    """The columns that all shards have, with unit and meaning."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    first = pq.read_schema(paths[0]).remove_metadata()
    for path in paths[1:]:
        own = pq.read_schema(path)
        if own.names != first.names or own.types != first.types:
            other = set(own.names) ^ set(first.names)
            what = f"columns ({', '.join(sorted(other))})" if other else "types of columns"
            raise ValueError(f"{path} has other {what} than {paths[0]}; both are of one run?")
    return pa.schema(
        field.with_metadata(dict(fields[field.name])) if field.name in fields else field
        for field in first
    )


def _batches(paths: Sequence[Path], order: _Order) -> Iterator[Any]:
    """The shards' rows, checked for their order."""
    import pyarrow.parquet as pq

    for path in paths:
        with reading(path, "shard"), pq.ParquetFile(path, pre_buffer=False) as file:
            for batch in file.iter_batches(GROUP):
                index = batch.column(batch.schema.names.index("index"))
                order.take(index.to_numpy(zero_copy_only=False))
                yield batch


def _groups(batches: Iterator[Any], rows: int) -> Iterator[list[Any]]:
    """The same rows in lists of batches that have ``rows`` together; the last may have fewer."""
    group: list[Any] = []
    room = rows
    for batch in batches:
        while batch.num_rows:
            part = batch.slice(0, room)
            group.append(part)
            room -= part.num_rows
            batch = batch.slice(part.num_rows)
            if not room:
                yield group
                group, room = [], rows
    if group:
        yield group


class _Order:
    """Whether indices come as 0, 1, 2, ...; what is lost or doubled, as ranges."""

    def __init__(self) -> None:
        self.next = 0
        self.lost: list[tuple[int, int]] = []
        self.doubled: list[tuple[int, int]] = []

    def take(self, index: np.ndarray) -> None:
        if np.array_equal(index, np.arange(self.next, self.next + len(index))):
            self.next += len(index)
            return
        for start, stop in _ranges(index):
            if start < self.next:
                self.doubled.append((start, min(stop, self.next)))
            if start > self.next:
                self.lost.append((self.next, start))
            self.next = max(self.next, stop)

    def finish(self, rows: int | None) -> None:
        """Raises ValueError where something is lost or doubled."""
        if rows is not None and self.next < rows:
            self.lost.append((self.next, rows))
        if rows is not None and self.next > rows:
            self.doubled.append((rows, self.next))
        if self.lost or self.doubled:
            found = {"lost": self.lost, "there twice or not of this run": self.doubled}
            words = [f"{_words(ranges)} are {what}" for what, ranges in found.items() if ranges]
            raise ValueError(
                f"{'; '.join(words)}; `vaefast jobs verify` finds the shards, `vaefast jobs "
                "resume` makes them anew"
            )


def _ranges(index: np.ndarray) -> Iterator[tuple[int, int]]:
    """Runs of ascending numbers as ranges."""
    cuts = np.flatnonzero(np.diff(index) != 1) + 1
    for part in np.split(index, cuts):
        if len(part):
            yield int(part[0]), int(part[-1]) + 1


def _words(ranges: list[tuple[int, int]]) -> str:
    """``rows 3, 8 to 11 (and 2 further ranges)``."""
    named = [f"{a}" if b == a + 1 else f"{a} to {b - 1}" for a, b in ranges[:NAMED]]
    more = f" and {len(ranges) - NAMED} further ranges" if len(ranges) > NAMED else ""
    return f"rows {', '.join(named)}{more}"
