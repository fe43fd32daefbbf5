"""Rows of an .npy file, until sources are there."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaefast.jobs.durable import checksum

__all__ = ["Rows", "open_source"]


class Rows(NamedTuple):
    x: Tensor
    index: Tensor
    y: Tensor | None
    failed: dict[int, str]


class Npy:
    def __init__(self, path: str) -> None:
        self.array = np.load(path, mmap_mode="r")
        self.event_shape = self.array.shape[1:]
        self.description = path
        self.fingerprint = checksum(memoryview(np.ascontiguousarray(self.array)).cast("B"))

    def __len__(self) -> int:
        return len(self.array)

    def read(self, start: int, stop: int) -> Rows:
        x = self.array[start:stop]
        x = x.astype(np.float32) / 255 if x.dtype == np.uint8 else np.array(x)
        return Rows(torch.from_numpy(x), torch.arange(start, stop), None, {})


def open_source(spec: str, *, box: Any = None, labels: Any = None) -> Npy:
    return Npy(spec)


def merge_shards(paths: Any, out: Any, metadata: Any) -> None:
    import json

    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = [pq.read_table(path).replace_schema_metadata(None) for path in paths]
    table = pa.concat_tables(tables).combine_chunks()
    assert table["index"].to_pylist() == list(range(len(table)))
    table = table.replace_schema_metadata({"vaefast": json.dumps(metadata, sort_keys=True)})
    pq.write_table(table, out)
