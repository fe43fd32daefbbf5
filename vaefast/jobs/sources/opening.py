"""From what a user names to a source of rows."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from vaefast import checks
from vaefast.data.dataset import Dataset
from vaefast.data.known import KNOWN
from vaefast.data.values import Box
from vaefast.jobs.sources.arrays import ArraySource, NpySource, known
from vaefast.jobs.sources.images import FolderSource
from vaefast.jobs.sources.labels import Labels, open_labels
from vaefast.jobs.sources.objects import ObjectSource, is_source, made_by
from vaefast.jobs.sources.parquet import ParquetSource
from vaefast.jobs.sources.rows import Source
from vaefast.jobs.sources.tars import TarSource, expand

__all__ = ["open_source"]

KINDS = "an .npy or .parquet file, a folder of images, .parquet or .tar files, or a .tar file"
REMEDIES = {
    ".npz": "an .npz is packed and cannot be read in parts; np.save('x.npy', np.load({!r})['x'])",
    ".csv": "a .csv cannot be read in parts; pandas.read_csv({!r}).to_parquet('x.parquet')",
    ".gz": "a packed file cannot be read in parts; unpack it first",
    ".tgz": "a packed file cannot be read in parts; unpack it first",
    ".zip": "a packed file cannot be read in parts; unpack it first",
}


def open_source(
    spec: Any,
    *,
    box: Box | None = None,
    labels: str | os.PathLike[str] | None = None,
    event_shape: Sequence[int] | None = None,
    split: str = "test",
    root: str | os.PathLike[str] | None = None,
) -> Source:
    """Rows of inputs that are read a range at a time, by their number.

    - .npy: [n, C, H, W], [n, H, W] or [n, D] of uint8, bool or floats, mapped into memory.
    - .parquet, ``file.parquet:column``, or a folder of such files: a column of lists of numbers,
      nested as [D], [H, W] or [C, H, W], or of PNG or JPEG bytes; else all columns of numbers.
    - a folder of PNG or JPEG images, sub-folders included, in the order of their sorted paths.
    - .tar, ``shards/{000..099}.tar``, or a folder of such files, as WebDataset writes them.
    - "digits", "mnist", "fashion-mnist", "cifar10": one split, held in memory.
    - ``package.module:make_rows`` or ``file.py:make_rows``: a function that returns an object.
    - an object with ``__len__`` and ``read(start, stop)``, or with ``__getitem__``; an array or a
      tensor [n, *event]; a :class:`vaefast.data.Dataset`.
    - the ``description`` of a source, which opens it again.

    A row that cannot be read, has another shape, NaN, infinite values or values outside the box is
    a failed row with a reason, never an error; uint8 is mapped to the box.

    Args:
        spec: as above.
        box: smallest and largest valid entry, by default [0, 1].
        labels: a column of the Parquet files, or a file as for ``vaefast.data.load``. Without it
            the names of a folder's sub-folders and the .cls members of tars are the classes.
        event_shape: of a row, where the first readable one shall not decide.
        split: "test" or "train", of a known set and of a folder that has both.
        root: folder of the known sets, as for ``vaefast.data.load``.

    Raises:
        ValueError, FileNotFoundError: no such data, or nothing that can be read in parts; one line.
        ImportError: a package of the extra ``jobs`` or ``webdataset`` is missing.
    """
    checks.option(split, "split", ("test", "train"))
    if isinstance(spec, Mapping):
        return _again(spec)
    label = None if labels is None else os.fspath(labels)
    event = None if event_shape is None else tuple(map(int, event_shape))
    found = _open(spec, box, label, event, split, root)
    if event is not None and found.event_shape != event:
        raise ValueError(f"rows must be {list(event)}, got {list(found.event_shape)}")
    ends = [str(end) for end in found.box]  # JSON knows no infinity
    found.description |= {"box": ends, "labels": label, "event_shape": list(found.event_shape)}
    return found


def _again(description: Mapping[str, Any]) -> Source:
    """What a description is of."""
    if description["kind"] == "object":
        raise ValueError(
            f"a source of type {description['type']} cannot be opened again; pass the object, or "
            "name a function that makes it: file.py:make_rows"
        )
    spec = description["name" if description["kind"] == "known" else "path"]
    if column := description.get("column"):
        spec = f"{spec}:{column}"
    low, high = map(float, description["box"])
    return open_source(
        spec,
        box=(low, high),
        labels=description["labels"],
        event_shape=description["event_shape"],
        split=description.get("split", "test"),
        root=description.get("root"),
    )


def _open(
    spec: Any,
    box: Box | None,
    labels: str | None,
    event: tuple[int, ...] | None,
    split: str,
    root: str | os.PathLike[str] | None,
) -> Source:
    if not isinstance(spec, str | os.PathLike):
        return _object(spec, box, labels, event, split)
    name = os.fspath(spec)
    if name in KNOWN:
        return _labelled(known(name, split, root, box), labels)
    path = Path(name).expanduser()
    suffix = path.suffix.lower()
    if path.is_dir():
        return _folder(path, box, labels, event, split)
    if suffix == ".tar":
        return TarSource([path] if path.is_file() else expand(name), box, event, labels, name)
    if suffix == ".npy":
        return _labelled(NpySource(path, box, (None, ())), labels)
    if suffix == ".parquet":
        return ParquetSource([path], box, event, None, labels)
    head, colon, tail = name.rpartition(":")
    if colon and Path(head).suffix.lower() == ".parquet":
        return ParquetSource([Path(head).expanduser()], box, event, tail, labels)
    if colon and tail.isidentifier():
        source = _object(made_by(name), box, labels, event, split)
        source.description = {"kind": "path", "path": name}
        return source
    remedy = REMEDIES.get(suffix, "").format(path.name)
    raise ValueError(
        f"data must be {', '.join(KNOWN)}, {KINDS}, or file.py:make_rows; got {name!r}"
        + (remedy and f"; {remedy}")
    )


def _object(
    value: Any, box: Box | None, labels: str | None, event: tuple[int, ...] | None, split: str
) -> Source:
    """A source of what is in memory, or of the user's own methods."""
    if isinstance(value, Source):
        return value
    if isinstance(value, Dataset):
        train = split == "train"
        y = value.y_train if train else value.y_test
        x = value.x_train if train else value.x_test
        given = (None if y is None else y.numpy(), value.classes)
        return _labelled(ArraySource(x.numpy(), (value.low, value.high), given, value.name), labels)
    if isinstance(value, np.ndarray | Tensor):
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
        return _labelled(ArraySource(array, box, (None, ()), "x"), labels)
    if not is_source(value):
        raise TypeError(
            "data must be a name, a path, an array, or an object with __len__ and "
            f"read(start, stop), got {type(value).__name__}"
        )
    return _labelled(ObjectSource(value, box, event), labels)


def _labelled(source: Source, labels: str | None) -> Source:
    if labels is not None:
        source.y, source.classes = open_labels(labels, len(source))
    return source


def _folder(
    folder: Path, box: Box | None, labels: str | None, event: tuple[int, ...] | None, split: str
) -> Source:
    """A folder of Parquet files, of tar files, or of images."""
    names = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    for suffix in (".parquet", ".tar"):
        if found := [path for path in names if path.suffix.lower() == suffix]:
            if suffix == ".parquet":
                return ParquetSource(found, box, event, None, labels)
            return TarSource(found, box, event, labels, str(folder))
    given: Callable[[int], Labels] | None = None
    if labels is not None:
        given = lambda rows: open_labels(labels, rows)  # noqa: E731
    return FolderSource(folder, box, event, split, given)
