"""The user's own arrays, tables and folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vaefast.data.arrays import read_arrays
from vaefast.data.dataset import Array, Arrays, Dataset
from vaefast.data.folders import IMAGES, read_folder, read_image
from vaefast.data.labels import as_classes, read_labels, source_of
from vaefast.data.tables import read_table
from vaefast.data.values import UNIT, Box, as_tensor, check_inputs, fit_box, into_box

__all__ = ["FORMATS", "TARGETS", "load_attacked", "load_inputs", "load_path", "relabelled"]

CLEAN = "{} holds attacked inputs, x_adv, too: the clean ones, x, were taken."
KEYS = ("x", "x_train", "y", "y_train", "x_test", "y_test")
TABLES = (".csv", ".parquet")
FORMATS = (".npy", ".npz", *TABLES)
TARGETS = (".npy", ".npz", *IMAGES)
OTHERS = {"always": "train", "labelled": "fit the latent classifier"}
Labels = tuple[Array | None, Array | None]


def load_path(path: Path, *, box: Box | None, labels: str | None, split: str = "always") -> Dataset:
    """Read a file or a folder of the user's, as :func:`vaefast.data.load`."""
    arrays = _arrays(path, labels)
    x = check_inputs(arrays.x, f"{path}: x")
    x_test = None if arrays.x_test is None else check_inputs(arrays.x_test, f"{path}: x_test")
    if x_test is not None and x_test.shape[1:] != x.shape[1:]:
        raise ValueError(
            f"{path}: x_test must be [n, {_listed(x.shape[1:])}] like x, got {list(x_test.shape)}"
        )
    (y, y_test), classes = _labels(path, arrays, labels)
    x, box, note = fit_box(x, f"{path}: x", box)
    notes = [arrays.note, note]
    if x_test is None:
        what = "folder" if path.is_dir() else "file"
        divided = split == "always" or (split == "labelled" and y is not None)
        others = OTHERS.get(split, "")
        train, test, split_note = _split(len(x), what, others) if divided else _whole(len(x), what)
        x, x_test, y, y_test = x[train], x[test], _at(y, train), _at(y, test)
        notes.append(split_note)
    else:
        x_test, note = into_box(x_test, f"{path}: x_test", box)
        notes.append(note and f"Of x_test {note}")
    tensors = (as_tensor(x, box), _tensor(y), as_tensor(x_test, box), _tensor(y_test))
    return Dataset(path.name, *tensors, " ".join(filter(None, notes)), *box, classes)


def load_attacked(path: Path, box: Box = UNIT) -> tuple[Tensor, str] | None:
    """``x_adv`` of an .npz that ``vaefast attack`` wrote, None where there is no such key.

    Args:
        path: of the file.
        box: which values are refused outside; infinite for any value.

    Returns:
        Float32, [n, C, H, W] or [n, D]; float64 where the file holds that; and what to say of it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a corrupted file, or values that are no images.
    """
    x_adv = read_arrays(path, ("x_adv",))[0].get("x_adv")
    if x_adv is None:
        return None
    checked = check_inputs(x_adv, f"{path}: x_adv")
    if x_adv.dtype == np.float64:
        checked = x_adv.reshape(checked.shape)
    checked, note = into_box(checked, f"{path}: x_adv", box)
    words = f"x_adv of {path.name}, {len(checked)} attacked inputs. {note}".rstrip()
    if checked.dtype == np.float64:
        return torch.from_numpy(checked), words
    return as_tensor(checked, box if np.isfinite(box).all() else UNIT), words


def load_inputs(path: Path, like: Dataset) -> tuple[Tensor, str]:
    """Inputs [n, *event] of a file that fit a data set: its event shape, its box; and a note.

    Args:
        path: an .npy or .npz (key ``x``) of inputs or of one, or one image.
        like: the data set.
    """
    event = tuple(like.x_test.shape[1:])
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    if path.suffix.lower() in (".npy", ".npz"):
        found, names = read_arrays(path, ("x",))
        if "x" not in found:
            raise ValueError(f"{path} needs a key x, got {', '.join(names) or 'none'}")
        x, clean = found["x"], CLEAN.format(path.name) if "x_adv" in names else ""
        x = x[None] if x.shape in (event, event[1:] if event[0] == 1 else event) else x
    else:
        x, clean = read_image(path, "L" if event[0] == 1 else "RGB")[None], ""
    x = check_inputs(x, f"{path}: x")
    if x.shape[1:] != event:
        raise ValueError(
            f"{path}: x must be [n, {_listed(event)}] like the data, got {list(x.shape)}"
        )
    box = (like.low, like.high)
    x, note = into_box(x, f"{path}: x", box)
    return as_tensor(x, box), f"{clean} {note}".strip()


def relabelled(data: Dataset, labels: str) -> Dataset:
    """A known data set with the labels of another file, those of the test set last."""
    rows = len(data.x_train)
    y, classes = as_classes(read_labels(labels, rows + len(data.x_test)), labels)
    return data._replace(y_train=_tensor(y[:rows]), y_test=_tensor(y[rows:]), classes=classes)


def _arrays(path: Path, labels: str | None) -> Arrays:
    if path.is_dir():
        return read_folder(path)
    if not path.is_file():
        raise FileNotFoundError(f"no data file {path}")
    if path.suffix.lower() in TABLES:
        source, column = source_of(labels) if labels else (None, None)
        same = source is not None and source.samefile(path)
        return read_table(path, column if same else None)
    found, names = read_arrays(path, KEYS)
    for key, other in (("x", "x_train"), ("y", "y_train")):
        if key in found and other in found:
            raise ValueError(f"{path} has {key} and {other}; keep one of the two")
    x, y = (found.get(key, found.get(f"{key}_train")) for key in ("x", "y"))
    if x is None:
        raise ValueError(f"{path} needs a key x or x_train, got {', '.join(names) or 'none'}")
    if "y_test" in found and "x_test" not in found:
        raise ValueError(f"{path} has y_test but no x_test")
    note = CLEAN.format(path.name) if "x_adv" in names else ""
    return Arrays(x, y, found.get("x_test"), found.get("y_test"), note)


def _labels(path: Path, arrays: Arrays, labels: str | None) -> tuple[Labels, tuple[str, ...]]:
    """The labels of both splits as classes, and the names of the classes."""
    rows, test = len(arrays.x), 0 if arrays.x_test is None else len(arrays.x_test)
    if labels is not None:
        y, classes = as_classes(read_labels(labels, rows + test), labels)
        return (y[:rows], y[rows:] if test else None), classes
    parts = {"y": (arrays.y, rows), "y_test": (arrays.y_test, test)}
    given = {name: part for name, (part, _) in parts.items() if part is not None}
    for name, part in given.items():
        n = parts[name][1]
        if part.shape != (n,):
            raise ValueError(
                f"{path}: {name} must be [n] = [{n}] like its inputs, got {list(part.shape)}"
                + _column_hint(name, part)
            )
    if not given:
        return (None, None), ()
    text = any(part.dtype.kind in "US" for part in given.values())
    joined = np.concatenate([part.astype(str) if text else part for part in given.values()])
    both, classes = as_classes(joined, f"{path}: {' and '.join(given)}")
    if arrays.y is None:
        return (None, both), classes
    return (both[:rows], None if arrays.y_test is None else both[rows:]), classes


def _column_hint(name: str, y: Array) -> str:
    if y.ndim != 2:
        return ""
    return f"; save {name}[:, 0]" if y.shape[1] == 1 else f"; of one-hot rows save {name}.argmax(1)"


def _split(rows: int, what: str, others: str) -> tuple[Array, Array, str]:
    """Rows for training and for the test, in their order in the file; the same ones ever after.

    ``others``: what those outside of the test set do.
    """
    if rows == 1:
        return np.arange(1), np.arange(1), "The one input is both training and test data."
    order = np.random.RandomState(0).permutation(rows)
    test = max(1, rows // 5)
    note = (
        f"The {what} has no test set: {test} of its {rows} inputs, chosen by a fixed permutation, "
        f"are the test set, the others {others}."
    )
    return np.sort(order[test:]), np.sort(order[:test]), note


def _whole(rows: int, what: str) -> tuple[Array, Array, str]:
    every = np.arange(rows)
    return every, every, f"The {what} has no test set and nothing is trained: all {rows} are taken."


def _at(y: Array | None, rows: Array) -> Array | None:
    return None if y is None else y[rows]


def _tensor(y: Array | None) -> Tensor | None:
    return None if y is None else torch.from_numpy(np.ascontiguousarray(y))


def _listed(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))
