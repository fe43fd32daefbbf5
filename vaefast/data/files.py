"""The user's own .npy and .npz files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vaefast.data.dataset import Array, Dataset, dataset, reading

__all__ = ["load_file"]

KEYS = ("x", "y", "x_test", "y_test")
CHANNELS = (1, 3, 4)


def load_file(path: Path) -> Dataset:
    """Read ``x`` and, from an .npz, ``y``, ``x_test`` and ``y_test``, as ``vaefast.data.load``."""
    arrays = _read(path)
    x = _images(arrays["x"], f"{path}: x")
    y = _labels(arrays.get("y"), len(x), f"{path}: y")
    if "x_test" not in arrays:
        if "y_test" in arrays:
            raise ValueError(f"{path} has y_test but no x_test")
        train, test, note = _split(len(x))
        return dataset(path.name, (x[train], _at(y, train)), (x[test], _at(y, test)), note)
    x_test = _images(arrays["x_test"], f"{path}: x_test")
    if x_test.shape[1:] != x.shape[1:]:
        raise ValueError(
            f"{path}: x_test must be [n, {_listed(x.shape[1:])}] like x, got {list(x_test.shape)}"
        )
    y_test = _labels(arrays.get("y_test"), len(x_test), f"{path}: y_test")
    return dataset(path.name, (x, y), (x_test, y_test))


def _read(path: Path) -> dict[str, Array]:
    if not path.is_file():
        raise FileNotFoundError(f"no data file {path}")
    with reading(path, "NumPy file (without pickled objects)"), path.open("rb") as file:
        try:
            loaded = np.load(file, allow_pickle=False)
        except ValueError as error:  # NumPy's own text advises to unpickle it
            raise ValueError("it holds no plain arrays") from error
        if isinstance(loaded, np.ndarray):
            return {"x": loaded}
        with loaded:
            arrays = {key: loaded[key] for key in KEYS if key in loaded.files}
            if "x" not in arrays:
                raise ValueError(f"it needs a key x, got {', '.join(loaded.files) or 'none'}")
    return arrays


def _images(x: Array, label: str) -> Array:
    """x as uint8, or as float32 in [0, 1]: [n, C, H, W] or [n, D]."""
    if x.ndim not in (2, 3, 4) or x.size == 0:
        raise ValueError(
            f"{label} must be [n, H, W], [n, C, H, W] or [n, D] and not empty, got {list(x.shape)}"
        )
    if x.ndim == 4 and x.shape[3] in CHANNELS and x.shape[1] > max(CHANNELS):
        raise ValueError(
            f"{label} must be [n, C, H, W], got {list(x.shape)} with the channels last; "
            "save x.transpose(0, 3, 1, 2)"
        )
    if x.ndim == 3:
        x = x[:, None]
    if x.dtype == np.uint8:
        return x
    if x.dtype.kind not in "fb":
        raise ValueError(
            f"{label} must be uint8 from 0 to 255 or floats in [0, 1], got {x.dtype}; save "
            "x.astype('uint8') or x / 255"
        )
    with np.errstate(over="ignore"):
        return _in_unit_interval(x.astype(np.float32), label)


def _in_unit_interval(x: Array, label: str) -> Array:
    finite = np.isfinite(x)
    if not finite.all():
        raise ValueError(
            f"{label} must be finite, got {np.count_nonzero(~finite)} of {x.size} values that are "
            "NaN or infinite; remove or replace them"
        )
    outside = np.count_nonzero((x < 0) | (x > 1))
    if outside:
        raise ValueError(
            f"{label} must be in [0, 1], got {outside} of {x.size} values outside, from "
            f"{x.min():g} to {x.max():g}; save uint8, or rescale, as in x / 255"
        )
    return x


def _labels(y: Array | None, rows: int, label: str) -> Array | None:
    if y is None:
        return None
    if y.shape != (rows,):
        raise ValueError(f"{label} must be [n] = [{rows}] like its inputs, got {list(y.shape)}")
    if y.dtype.kind not in "iub" or y.min() < 0:
        raise ValueError(
            f"{label} must be whole numbers from 0, got {y.dtype} from {y.min()}; save "
            "y.astype('int64')"
        )
    return y


def _split(rows: int) -> tuple[Array, Array, str]:
    """Rows for training and for the test, in their order in the file; the same ones ever after."""
    if rows == 1:
        return np.arange(1), np.arange(1), "The one input is both training and test data."
    order = np.random.RandomState(0).permutation(rows)
    test = max(1, rows // 5)
    note = (
        f"The file has no test set: {test} of its {rows} inputs, chosen by a fixed permutation, "
        "are the test set, the others train."
    )
    return np.sort(order[test:]), np.sort(order[:test]), note


def _at(y: Array | None, rows: Array) -> Array | None:
    return None if y is None else y[rows]


def _listed(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))
