"""Labels of a source: a small number per row, from a file of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vaefast.data.dataset import Array
from vaefast.data.labels import as_classes, read_labels

__all__ = ["NONE", "Labels", "compact", "open_labels"]

Labels = tuple["Array | None", tuple[str, ...]]
NONE: Labels = (None, ())
BLOCK = 1 << 20  # labels that are checked at once


def open_labels(spec: str | None, rows: int) -> Labels:
    """Classes [rows] and their names: whole numbers of an .npy stay in the file, mapped.

    Args:
        spec: as for ``vaefast.data.load``; None for none.
        rows: how many inputs there are.
    """
    if spec is None:
        return NONE
    path = Path(spec).expanduser()
    if path.suffix.lower() == ".npy" and path.is_file() and (y := _mapped(path, rows)) is not None:
        return y, ()
    return compact(as_classes(read_labels(spec, rows), spec))


def _mapped(path: Path, rows: int) -> Array | None:
    try:
        y = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError):
        return None  # read_labels says why
    if y.shape != (rows,) or y.dtype.kind not in "iu":
        return None
    low = min((int(y[at : at + BLOCK].min()) for at in range(0, rows, BLOCK)), default=-1)
    return y if low >= 0 else None


def compact(labels: tuple[Array, tuple[str, ...]]) -> Labels:
    """The same in the smallest type that holds them: there is one per row in memory."""
    y, names = labels
    return y.astype(np.min_scalar_type(int(y.max(initial=0)))), names
