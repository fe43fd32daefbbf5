"""The file of a shard: one row per input, complete or absent."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vaefast.jobs.durable import (
    append_line,
    checksum,
    file_checksum,
    read_lines,
    replace_whole,
)
from vaefast.jobs.manifest import Column, Manifest, Places

__all__ = ["Shard", "checksums", "damage", "read_shard", "write_shard"]

KEY = b"vaefast"
ANEW = "vaefast jobs resume makes it anew"


@dataclass(frozen=True)
class Shard:
    """The rows of one shard, in the order of their indices.

    Attributes:
        number: of the shard.
        values: [n] or [n, ...] arrays by the names of the manifest's columns.
        failed: [n] bool.
        reasons: [n] text, why a row failed or abstained.
        labels: [n] int64, or None.
        inputs: xxh3 of the input rows.
        attempts: how often the rows that failed were tried.
        seconds: by stage.
    """

    number: int
    values: Mapping[str, np.ndarray]
    failed: np.ndarray
    reasons: list[str]
    labels: np.ndarray | None
    inputs: str
    attempts: int = 1
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def content(self) -> str:
        """xxh3 of all values, by which two computations of a shard compare."""
        parts: list[bytes | memoryview] = []
        for name, array in sorted(self.values.items()):
            parts.append(f"{name} {array.dtype} {array.shape}".encode())
            parts.append(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        parts.append(self.failed.view(np.uint8).data)
        parts.append(json.dumps(self.reasons).encode())
        return checksum(*parts)


def write_shard(shard: Shard, manifest: Manifest, places: Places, owner: str) -> int:
    """Write a shard durably, after its checksum; the bytes it takes.

    The checksum comes first, so that there is no shard without one, whatever happens in between.

    Args:
        owner: whose list of checksums: a file of this one writer.

    Raises:
        OSError: it cannot be written, with what to do.
    """
    start, stop = manifest.bounds(shard.number)
    about = {
        "fingerprint": manifest.fingerprint,
        "inputs": shard.inputs,
        "content": shard.content,
        "start": start,
        "stop": stop,
        "attempts": shard.attempts,
        "seconds": {name: round(value, 6) for name, value in shard.seconds.items()},
        "threads": torch.get_num_threads(),
    }
    data = _parquet(shard, manifest, about, start)
    entry = about | {"shard": shard.number, "file": checksum(data), "bytes": len(data)}
    entry["failed"] = int(shard.failed.sum())
    del entry["fingerprint"]
    append_line(places.checksums / f"{owner}.jsonl", entry)
    replace_whole(places.shard(shard.number), data)
    return len(data)


def _parquet(shard: Shard, manifest: Manifest, about: dict[str, Any], start: int) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = len(shard.failed)
    arrays = {"index": pa.array(np.arange(start, start + rows, dtype=np.int64))}
    if shard.labels is not None:
        arrays["label"] = pa.array(shard.labels)
    arrays["failed"] = pa.array(shard.failed)
    arrays["reason"] = pa.array(shard.reasons, type=pa.string())
    arrays |= {c.name: _arrow(shard.values[c.name], c) for c in manifest.columns}
    table = pa.table(arrays)
    table = table.replace_schema_metadata({KEY: json.dumps(about).encode()})
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd", write_page_checksum=True)
    return out.getvalue()


def _arrow(values: np.ndarray, column: Column) -> Any:
    import pyarrow as pa

    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    if not column.shape:
        return flat
    return pa.FixedSizeListArray.from_arrays(flat, int(np.prod(column.shape)))


def read_shard(path: Path, manifest: Manifest) -> Shard:
    """The shard of a file.

    Raises:
        ValueError: it is damaged, or of another run; one line.
        FileNotFoundError: there is none.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = int(path.stem)
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read()
            about = json.loads((table.schema.metadata or {})[KEY])
        shard = _from_table(table, about, number, manifest)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path} is damaged ({reason}); {ANEW}") from None
    if about["fingerprint"] != manifest.fingerprint:
        raise ValueError(f"{path} is of another run; take it away, {ANEW}")
    if about["content"] != shard.content:
        raise ValueError(f"{path} is damaged (its checksum); {ANEW}")
    return shard


def _from_table(table: Any, about: dict[str, Any], number: int, manifest: Manifest) -> Shard:
    start, stop = manifest.bounds(number)
    if table["index"].to_pylist() != list(range(start, stop)):
        raise ValueError(f"its rows are not {start} to {stop - 1}")
    values = {c.name: _numpy(table[c.name], c) for c in manifest.columns}
    labels = table["label"].to_numpy() if "label" in table.column_names else None
    failed = table["failed"].to_numpy()
    reasons = table["reason"].to_pylist()
    own = about["inputs"], about["attempts"], about["seconds"]
    return Shard(number, values, failed, reasons, labels, *own)


def _numpy(column: Any, own: Column) -> np.ndarray:
    array = column.combine_chunks()
    array = array.chunk(0) if hasattr(array, "chunk") else array
    flat = array.flatten() if own.shape else array
    return flat.to_numpy(zero_copy_only=False).reshape(len(array), *own.shape)


def checksums(places: Places) -> dict[int, list[dict[str, Any]]]:
    """What was written of each shard, by all writers; the file is one of them, if it is there."""
    found: dict[int, list[dict[str, Any]]] = {}
    for path in sorted(places.checksums.glob("*.jsonl")):
        for entry in read_lines(path):
            if {"shard", "file", "bytes", "failed", "start", "stop"} <= entry.keys():
                found.setdefault(entry["shard"], []).append(entry)
    return found


def damage(path: Path, entries: list[dict[str, Any]], *, deep: bool = True) -> str:
    """What is wrong with a shard's file, "" where nothing: by length, and ``deep`` by its bytes."""
    size = path.stat().st_size
    if not entries:
        return "it is in no list of checksums"
    fitting = [entry for entry in entries if entry["bytes"] == size]
    if not fitting:
        return f"it has {size} bytes, {entries[-1]['bytes']} were written"
    if deep and file_checksum(path) not in {entry["file"] for entry in fitting}:
        return "its checksum is not the one that was written"
    return ""
