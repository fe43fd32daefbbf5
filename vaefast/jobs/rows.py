"""From the rows of a source to the rows of a shard: poisoned inputs fail alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from vaefast.jobs.durable import checksum
from vaefast.jobs.manifest import Column
from vaefast.jobs.shards import Shard
from vaefast.jobs.sources import Rows, RowSource, rows_digest
from vaefast.jobs.sources.rows import ANY, NO_LABEL
from vaefast.jobs.tasks import Computed
from vaefast.runtime.batching import BLOCK

__all__ = ["Work", "compute_rows", "shard_of"]

BATCH_BYTES = 32 << 20  # of inputs that are worked on at once
OUR_FAULT = (MemoryError, OSError, KeyboardInterrupt, SystemExit)  # no row's
NOT_READ = "the input could not be read"

Work = Callable[[Tensor, Tensor], Computed]  # of x [n, *event] and index [n]


class Filled:
    """The columns of a shard's rows, NaN, 0 and False where nothing came."""

    def __init__(self, columns: tuple[Column, ...], rows: int, before: Shard | None = None) -> None:
        if before is None:
            self.values = {c.name: _blank(c, rows) for c in columns}
            self.failed = np.ones(rows, dtype=bool)
            self.reasons = [NOT_READ] * rows
        else:
            self.values = {name: array.copy() for name, array in before.values.items()}
            self.failed, self.reasons = before.failed.copy(), list(before.reasons)

    def put(self, rows: np.ndarray, found: Computed) -> None:
        """What was computed of some rows, by their places."""
        for name, value in found.values.items():
            array = value.detach().cpu().numpy()
            self.values[name][rows] = array.reshape(len(rows), *self.values[name].shape[1:])
        self.failed[rows] = found.failed.cpu().numpy()
        for row, reason in zip(rows.tolist(), found.reasons, strict=True):
            self.reasons[row] = reason

    def fail(self, row: int, reason: str) -> None:
        self.failed[row], self.reasons[row] = True, reason


def _blank(column: Column, rows: int) -> np.ndarray:
    floating = column.dtype.startswith("float")
    return np.full((rows, *column.shape), np.nan if floating else 0, dtype=column.dtype)


def compute_rows(work: Work, x: Tensor, places: np.ndarray, start: int, filled: Filled) -> None:
    """Compute rows x [n, *event] that stand at ``places`` of a shard whose first index is start.

    A batch that raises is halved until the rows that make it raise are alone: they fail with what
    was raised. The numbers of the others do not depend on it.

    Raises:
        MemoryError, OSError: what is no row's fault.
    """
    todo = _batches(start + places, x[:1].numel() * x.element_size())[::-1]
    while todo:
        rows = todo.pop()
        index = torch.from_numpy(start + places[rows]).to(x.device)
        try:
            found = work(x[rows], index)
        except OUR_FAULT:
            raise
        except Exception as error:  # a model's own code may raise anything
            if rows.stop - rows.start > 1:
                middle = (rows.start + rows.stop) // 2
                todo += [slice(middle, rows.stop), slice(rows.start, middle)]
            else:
                filled.fail(int(places[rows.start]), one_line(error))
            continue
        filled.put(places[rows], found)


def _batches(index: np.ndarray, bytes_per_row: int) -> list[slice]:
    """Rows of these ascending global numbers [n], cut between the blocks that modules take whole.

    A cut inside a block would make two of it, and both cost as much as one.
    """
    blocks = max(1, BATCH_BYTES // max(1, bytes_per_row * BLOCK))
    group = index // (BLOCK * blocks)
    cuts = [0, *(np.flatnonzero(np.diff(group)) + 1).tolist(), len(index)]
    return [slice(a, b) for a, b in pairwise(cuts)]


def one_line(error: BaseException) -> str:
    """What was raised, for a table."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def shard_of(
    number: int,
    bounds: tuple[int, int],
    source: RowSource,
    work: Work,
    *,
    columns: tuple[Column, ...],
    labels: bool,
    to_model: Callable[[Tensor], Tensor],
    rows_at_once: int = ANY,
    before: Shard | None = None,
) -> Shard:
    """Read and compute one shard, or the rows of it that failed before.

    Args:
        number: of the shard.
        bounds: its first global index and the one after its last.
        source: of the rows.
        work: the task.
        columns: of its values.
        labels: whether rows have one.
        to_model: puts inputs on the model's device, in its dtype.
        rows_at_once: how many are read and computed together, at most.
        before: the shard as it is there, of which only failed rows are computed.
    """
    start, stop = bounds
    filled = Filled(columns, stop - start, before)
    known = np.full(stop - start, NO_LABEL, dtype=np.int64) if labels else None
    digests, seconds = [], {"read": 0.0, "compute": 0.0}
    for first, last in _parts(start, stop, rows_at_once):
        began = time.perf_counter()
        found = source.read(first, last)
        read = time.perf_counter()
        _fill(filled, found, start, work, to_model, before)
        seconds["read"] += read - began
        seconds["compute"] += time.perf_counter() - read
        digests.append(rows_digest(found))
        if known is not None and found.y is not None:
            known[found.index.numpy() - start] = found.y.numpy()
        del found  # before the next part is read
    return Shard(
        number,
        filled.values,
        filled.failed,
        filled.reasons,
        known,
        digests[0] if len(digests) == 1 else checksum("".join(digests).encode()),
        1 if before is None else before.attempts + 1,
        seconds=seconds,
    )


def _parts(start: int, stop: int, rows: int) -> Iterator[tuple[int, int]]:
    """Ranges of a shard that are read one after the other, each within ``rows`` global numbers."""
    cuts = range(start - start % rows + rows, stop, rows)
    return pairwise((start, *cuts, stop))


def _fill(
    filled: Filled,
    found: Rows,
    start: int,
    work: Work,
    to_model: Callable[[Tensor], Tensor],
    before: Shard | None,
) -> None:
    """Compute the rows that were read, or those of them that failed before."""
    places = found.index.numpy() - start
    chosen = np.ones(len(places), bool) if before is None else before.failed[places]
    if chosen.any():
        x = found.x if chosen.all() else found.x[torch.from_numpy(chosen)]
        compute_rows(work, to_model(x), places[chosen], start, filled)
    for index, reason in found.failed.items():
        filled.fail(index - start, reason)
