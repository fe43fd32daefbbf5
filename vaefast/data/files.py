"""The user's own .npy and .npz files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vaefast.data.dataset import Array, Dataset, dataset, pixels, reading

__all__ = ["check_image_array", "load_attacked", "load_file"]

KEYS = ("x", "y", "x_test", "y_test")
CHANNELS = (1, 3, 4)


def load_file(path: Path) -> Dataset:
    """Read ``x`` and, from an .npz, ``y``, ``x_test`` and ``y_test``, as ``vaefast.data.load``."""
    arrays, names = _read(path, KEYS)
    if "x" not in arrays:
        raise ValueError(f"{path} needs a key x, got {', '.join(names) or 'none'}")
    x = check_image_array(arrays["x"], f"{path}: x")
    y = _labels(arrays.get("y"), len(x), f"{path}: y")
    if "x_test" not in arrays:
        if "y_test" in arrays:
            raise ValueError(f"{path} has y_test but no x_test")
        train, test, note = _split(len(x))
        return dataset(path.name, (x[train], _at(y, train)), (x[test], _at(y, test)), note)
    x_test = check_image_array(arrays["x_test"], f"{path}: x_test")
    if x_test.shape[1:] != x.shape[1:]:
        raise ValueError(
            f"{path}: x_test must be [n, {_listed(x.shape[1:])}] like x, got {list(x_test.shape)}"
        )
    y_test = _labels(arrays.get("y_test"), len(x_test), f"{path}: y_test")
    return dataset(path.name, (x, y), (x_test, y_test))


def load_attacked(path: Path, *, unit_interval: bool = True) -> Tensor | None:
    """``x_adv`` of an .npz that ``vaefast attack`` wrote, None where there is no such key.

    Args:
        path: of the file.
        unit_interval: whether values outside [0, 1] are refused.

    Returns:
        Float32, [n, C, H, W] or [n, D]; float64 where the file holds that.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a corrupted file, or values that are no images.
    """
    x_adv = _read(path, ("x_adv",))[0].get("x_adv")
    if x_adv is None:
        return None
    checked = check_image_array(x_adv, f"{path}: x_adv", unit_interval=unit_interval)
    if x_adv.dtype == np.float64:
        return torch.from_numpy(x_adv.reshape(checked.shape))
    return pixels(checked)


def _read(path: Path, keys: Sequence[str]) -> tuple[dict[str, Array], list[str]]:
    """Those arrays of ``keys`` that a file holds, and the names of all; an .npy holds x."""
    if not path.is_file():
        raise FileNotFoundError(f"no data file {path}")
    with reading(path, "NumPy file (without pickled objects)"), path.open("rb") as file:
        try:
            loaded = np.load(file, allow_pickle=False)
        except ValueError as error:  # NumPy's own text advises to unpickle it
            raise ValueError("it holds no plain arrays") from error
        if isinstance(loaded, np.ndarray):
            return {"x": loaded}, ["x"]
        with loaded:
            return {key: loaded[key] for key in keys if key in loaded.files}, loaded.files


def check_image_array(x: Array, label: str, *, unit_interval: bool = True) -> Array:
    """``x`` as uint8, or as finite float32 in [0, 1]: [n, C, H, W] or [n, D].

    Args:
        x: [n, H, W], [n, C, H, W] or [n, D]; uint8, bool or floating.
        label: how messages name it.
        unit_interval: whether floats outside [0, 1] are refused.

    Raises:
        ValueError: another shape or type, no values, or values that are no pixels.
    """
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
        x = _finite(x.astype(np.float32), label)
    return _in_unit_interval(x, label) if unit_interval else x


def _finite(x: Array, label: str) -> Array:
    finite = np.isfinite(x)
    if not finite.all():
        raise ValueError(
            f"{label} must be finite, got {np.count_nonzero(~finite)} of {x.size} values that are "
            "NaN or infinite; remove or replace them"
        )
    return x


def _in_unit_interval(x: Array, label: str) -> Array:
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
