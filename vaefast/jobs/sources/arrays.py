"""Arrays: .npy files, mapped into memory, and known sets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from vaefast.data import load
from vaefast.data.arrays import read_arrays
from vaefast.data.dataset import Array, reading
from vaefast.data.known import IDX, read_bytes
from vaefast.data.values import UNIT, Box, check_inputs
from vaefast.jobs.sources.content import File, files_digest, xxhash
from vaefast.jobs.sources.labels import Labels
from vaefast.jobs.sources.rows import Raw, RawSource
from vaefast.runtime import batching

__all__ = ["ArraySource", "NpySource", "finite_for_bytes", "known"]

BLOCK = 16 << 20  # bytes that a digest takes at once
PART = 1 << 20  # bytes of float32 rows that a shard holds at once; at least one block of modules


class ArraySource(RawSource):
    """An array [n, *event], wherever its bytes lie.

    Args:
        x: [n, C, H, W], [n, H, W] or [n, D]; uint8, bool or floats.
        box: of valid entries.
        labels: of the rows.
        label: how messages name the array.
    """

    def __init__(self, x: Array, box: Box | None, labels: Labels, label: str) -> None:
        _check_kind(x, label)
        self._x, self.length = x, len(x)
        self.box = box or UNIT
        finite_for_bytes(x.dtype, self.box, label)
        self.event_shape = (1, *x.shape[1:]) if x.ndim == 3 else x.shape[1:]
        block_bytes = 4 * int(np.prod(self.event_shape)) * batching.BLOCK
        self.rows_at_once = max(1, PART // max(1, block_bytes)) * batching.BLOCK
        self.y, self.classes = labels
        self.description = {"kind": "object", "type": type(x).__name__}

    @property
    def fingerprint(self) -> str:  # type: ignore[override]
        """Of every byte, of labels and box."""
        digest = xxhash().xxh3_128(repr((self._x.dtype, self._x.shape, self.box)).encode())
        rows = max(1, BLOCK // max(1, self._x[:1].nbytes))
        for array in (self._x,) if self.y is None else (self._x, self.y):
            for start in range(0, len(array), rows):
                digest.update(np.ascontiguousarray(array[start : start + rows]).tobytes())
        return digest.hexdigest()

    def raw(self, start: int, stop: int) -> Raw:
        x = np.array(self._x[start:stop], order="C").reshape(stop - start, *self.event_shape)
        return Raw(x, np.arange(start, stop), {})


class NpySource(ArraySource):
    """An .npy file of which a shard reads its own rows only."""

    def __init__(self, path: Path, box: Box | None, labels: Labels) -> None:
        self._file = File.of(path)
        with reading(path, "NumPy file (without pickled objects)"):
            try:
                x = np.load(path, mmap_mode="r", allow_pickle=False)
            except (ValueError, OSError, EOFError):
                read_arrays(path, ())  # says what is wrong in the words of other commands
                raise
        super().__init__(x, box, labels, f"{path}: x")
        if x.ndim > 1 and not x.flags.c_contiguous:
            self.note = (
                f"{path.name} is in Fortran order, so a shard reads all over the file; "
                "np.save(name, np.ascontiguousarray(x)) writes one that is read in order."
            )
        self.description = {"kind": "path", "path": str(path.absolute())}

    @property
    def fingerprint(self) -> str:  # type: ignore[override]
        return files_digest([self._file], self.box)

    def raw(self, start: int, stop: int) -> Raw:
        self._file.check()  # a mapped file that was cut kills whoever reads beyond its end
        return super().raw(start, stop)


def known(
    name: str, split: str, root: str | os.PathLike[str] | None, box: Box | None
) -> ArraySource:
    """The train or test set of a known name, held in memory."""
    place = Path(root or os.environ.get("VAEFAST_DATA") or "data").expanduser()
    note, y = "", None  # type: tuple[str, Array | None]
    if name in IDX:
        x, y = read_bytes(name, place, split)
    else:
        low, high = box or UNIT
        data = load(name, root=root, low=low, high=high)
        train = split == "train"
        values, classes = (data.x_train, data.y_train) if train else (data.x_test, data.y_test)
        note, x, y = data.note, values.numpy(), None if classes is None else classes.numpy()
    found = ArraySource(x, box, (y, ()), name)
    found.description = {"kind": "known", "name": name, "split": split}
    found.description["root"] = str(place.absolute())
    found.note = note
    return found


def _check_kind(x: Array, label: str) -> None:
    """Shape and type as :func:`vaefast.data.load` takes them, without reading all of it."""
    if not len(x) if x.ndim else True:
        raise ValueError(f"{label} must be [n, H, W], [n, C, H, W] or [n, D] and not empty")
    some: Any = x[:4096] if x.dtype.kind in "iu" else np.zeros((1, *x.shape[1:]), x.dtype)
    check_inputs(np.asarray(some), label)


def finite_for_bytes(dtype: Any, box: Box, label: str) -> None:
    """uint8 is mapped to the box, which must then have ends."""
    if dtype == np.uint8 and not np.isfinite(box).all():
        raise ValueError(f"{label} is uint8 and needs a finite range, got [{box[0]:g}, {box[1]:g}]")
