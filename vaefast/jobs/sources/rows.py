"""Rows of inputs, what a place that they are read from must do, and how values become rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from vaefast.data.dataset import Array
from vaefast.data.values import ROUNDING, Box, as_tensor
from vaefast.jobs.sources.content import xxhash

__all__ = [
    "ANY",
    "NO_LABEL",
    "Raw",
    "RawSource",
    "RowSource",
    "Rows",
    "Source",
    "into_rows",
    "listed",
    "rows_digest",
    "span",
]

NO_LABEL = -1
ANY = 1 << 62  # rows


class Rows(NamedTuple):
    """A range of inputs, without those that could not be read.

    Args:
        x: [n, *event] float32, in the source's box.
        index: [n] int64, global, ascending.
        y: [n] int64 classes, -1 where a row has none; None without labels.
        failed: why a row could not be read, by its global index.
        clipped: values that lay outside the box by rounding and were put on its ends.
    """

    x: Tensor
    index: Tensor  # type: ignore[assignment]  # of the same name as tuple's search
    y: Tensor | None
    failed: dict[int, str]
    clipped: int = 0


@runtime_checkable
class RowSource(Protocol):
    """Where inputs come from: their number, and a range of them."""

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> Rows:
        """The rows start, ..., stop − 1; each of them is in ``index`` or in ``failed``."""
        ...


class Raw(NamedTuple):
    """Values as a file holds them: [n, *event] of the rows ``index``, and why others are absent."""

    x: Array
    index: Array  # type: ignore[assignment]
    failed: dict[int, str]


class Source(ABC):
    """A source of one length, event and box.

    Attributes:
        description: plain values that :func:`open_source` opens the same rows from, elsewhere.
        fingerprint: of the content, hexadecimal; :mod:`vaefast.jobs.sources.content` says of what.
        event_shape: of one row.
        box: smallest and largest valid entry.
        y: [len] classes, None without labels.
        classes: names of the classes, empty where they are numbers.
        note: what a report must say of the data, "" if nothing.
        rows_at_once: that a shard need hold, where parts of it are read as fast as the whole.
    """

    description: dict[str, Any]
    fingerprint: str
    event_shape: tuple[int, ...]
    box: Box
    y: Array | None = None
    classes: tuple[str, ...] = ()
    note: str = ""
    rows_at_once: int = ANY
    length: int

    def __len__(self) -> int:
        return self.length

    @abstractmethod
    def read(self, start: int, stop: int) -> Rows:
        """The rows start, ..., stop − 1.

        Raises:
            IndexError: no such range.
            OSError: a file is gone or has changed since it was opened; a bad row is no error.
        """


class RawSource(Source):
    """A source whose kind says how raw values are read."""

    def read(self, start: int, stop: int) -> Rows:
        start, stop = span(start, stop, len(self))
        raw = self.raw(start, stop)
        return into_rows(raw, self.labels(raw.index), self.box)

    @abstractmethod
    def raw(self, start: int, stop: int) -> Raw:
        """Values of those rows that can be read, all of ``event_shape``."""

    def labels(self, index: Array) -> Array | None:
        """Classes of these rows."""
        return None if self.y is None else np.asarray(self.y[index]).astype(np.int64)


def span(start: int, stop: int, length: int) -> tuple[int, int]:
    """The range as it is, once it is known to be one of ``length`` rows."""
    if not 0 <= start < stop <= length:
        raise IndexError(f"rows {start} to {stop} must lie in 0 to {length}")
    return start, stop


def into_rows(raw: Raw, y: Array | None, box: Box) -> Rows:
    """Rows in their box; those with NaN, infinite or outlying values fail.

    Args:
        raw: uint8, bool or floating; uint8 is mapped from 0 to 255 to the box.
        y: [n] int64 classes of ``raw.index``.
        box: finite for uint8.
    """
    x, index, failed = raw.x, raw.index, dict(raw.failed)
    clipped = 0
    if x.dtype != np.uint8:
        with np.errstate(over="ignore"):
            x = x.astype(np.float32)
        good, reasons = _faults(x, index, box)
        failed |= reasons
        x, index, y = x[good], index[good], None if y is None else y[good]
        x, clipped = _clip(x, box)
    return Rows(
        as_tensor(x, box),
        torch.from_numpy(np.ascontiguousarray(index, dtype=np.int64)),
        None if y is None else torch.from_numpy(np.ascontiguousarray(y, dtype=np.int64)),
        dict(sorted(failed.items())),
        clipped,
    )


def _faults(x: Array, index: Array, box: Box) -> tuple[Array, dict[int, str]]:
    """Which rows are usable, and why others are not."""
    if not len(x):
        return np.ones(0, bool), {}
    flat = x.reshape(len(x), -1)
    low, high = flat.min(axis=1), flat.max(axis=1)  # NaN where a value is
    slack = ROUNDING * (box[1] - box[0]) if np.isfinite(box).all() else 0.0
    good = np.isfinite(low) & np.isfinite(high)
    good &= (low >= box[0] - slack) & (high <= box[1] + slack)
    return good, {int(index[k]): _fault(flat[k], box) for k in np.flatnonzero(~good)}


def _fault(x: Array, box: Box) -> str:
    for what, found in (("NaN", np.isnan(x)), ("infinite in float32", np.isinf(x))):
        if count := int(found.sum()):
            return f"{count} of {x.size} values {'is' if count == 1 else 'are'} {what}"
    return f"values from {x.min():.7g} to {x.max():.7g}, outside [{box[0]:g}, {box[1]:g}]"


def _clip(x: Array, box: Box) -> tuple[Array, int]:
    outside = int(np.count_nonzero((x < box[0]) | (x > box[1])))
    return (np.clip(x, *box), outside) if outside else (x, 0)


def rows_digest(rows: Rows) -> str:
    """xxh3 of 128 bits, hexadecimal: of indices, values, labels and failures."""
    digest = xxhash().xxh3_128()
    for tensor in (rows.index, rows.x, rows.y):
        if tensor is not None:
            digest.update(repr((tensor.dtype, tuple(tensor.shape))).encode())
            digest.update(np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8))
    digest.update(repr(sorted(rows.failed.items())).encode())
    return digest.hexdigest()


def listed(shape: Sequence[int]) -> str:
    """``[1, 28, 28]``."""
    return f"[{', '.join(map(str, shape))}]"
