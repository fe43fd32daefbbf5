"""Labels: from a file of their own, as numbers or as text."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vaefast.data.arrays import read_arrays
from vaefast.data.dataset import Array
from vaefast.data.tables import read_column

__all__ = ["as_classes", "read_labels", "source_of"]

SUFFIXES = (".npy", ".npz", ".csv", ".txt", ".parquet")


def source_of(spec: str) -> tuple[Path, str | None]:
    """``file.csv:column`` or ``file.npz:key`` as path and name; the name is optional.

    Raises:
        ValueError: a suffix that holds no labels.
        FileNotFoundError: there is no such file.
    """
    head, colon, tail = spec.rpartition(":")
    named = bool(colon) and Path(head).suffix.lower() in SUFFIXES
    path, name = (Path(head), tail) if named else (Path(spec), None)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"labels must be a path that ends in {', '.join(SUFFIXES)}, got {spec!r}")
    path = path.expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"no labels file {path}")
    return path, name


def read_labels(spec: str, rows: int) -> Array:
    """One label per input: [rows], whole numbers or text as the file holds them.

    Args:
        spec: path of an .npy or .txt (one label a line), an .npz (``:key``, by default ``y`` or
            its only array), a .csv or .parquet (``:column``, by default its only one).
        rows: how many inputs there are.
    """
    path, name = source_of(spec)
    suffix = path.suffix.lower()
    if suffix in (".npy", ".npz"):
        labels = _read_numpy(path, name)
    else:
        labels = read_column(path, name, rows)
    if labels.shape != (rows,):
        raise ValueError(
            f"{path} must hold [{rows}] labels, one per input (those of the test set last), got "
            f"{list(labels.shape)}"
        )
    return labels


def _read_numpy(path: Path, name: str | None) -> Array:
    arrays, names = read_arrays(path)
    key = name or ("y" if "y" in arrays or len(arrays) != 1 else names[0])
    if key not in arrays:
        raise ValueError(
            f"{path} has no key {key}, got {', '.join(names) or 'none'}; name one as in "
            f"{path.name}:key"
        )
    return arrays[key]


def as_classes(y: Array, label: str) -> tuple[Array, tuple[str, ...]]:
    """Classes [n] int64 from 0, and their names where the labels are text, in sorted order.

    Raises:
        ValueError: neither whole numbers from 0 nor text.
    """
    if y.dtype.kind in "US":
        text = y.astype(str)
        numbers = _whole(text)
        if numbers is None:
            names, classes = np.unique(text, return_inverse=True)
            return classes.astype(np.int64), tuple(map(str, names))
        y = numbers
    if y.dtype.kind == "f" and (whole := _whole(y)) is not None:
        y = whole
    if y.dtype.kind not in "iub" or y.min() < 0:
        raise ValueError(f"{label} must be whole numbers from 0 or text, got {_trouble(y)}")
    return y.astype(np.int64), ()


def _trouble(y: Array) -> str:
    """What labels are instead, and the remedy."""
    if y.dtype.kind in "iu":
        return f"{y.min()}; save y - y.min(), or take rows without a label out of x and y"
    if y.dtype.kind != "f":
        return f"{y.dtype}; save y.astype(str)"
    missing = np.flatnonzero(~np.isfinite(y))
    if len(missing):
        return f"NaN or infinity in row {missing[0]}; take rows without a label out of x and y"
    return f"{y[y != np.floor(y)][0]:g}; save np.digitize(y, edges), or leave y out"


def _whole(text: Array) -> Array | None:
    """Text or floats that are all whole numbers, such as 3 or 3.0, as int64; else None."""
    try:
        numbers = text.astype(np.float64)
    except ValueError:
        return None
    whole = np.isfinite(numbers).all() and (numbers == np.floor(numbers)).all()
    return numbers.astype(np.int64) if whole else None
