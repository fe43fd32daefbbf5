"""Folders of PNG and JPEG images, and how one image becomes a row or the reason why not."""

from __future__ import annotations

import io
import os
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from vaefast.data.dataset import Array
from vaefast.data.folders import DEEP, GREY, IMAGES, SPLITS
from vaefast.data.values import UNIT, Box
from vaefast.jobs.sources.arrays import finite_for_bytes
from vaefast.jobs.sources.content import File, files_digest, needed
from vaefast.jobs.sources.labels import NONE, Labels, compact
from vaefast.jobs.sources.rows import Raw, RawSource, listed

__all__ = ["FolderSource", "ImageSource", "decode", "stacked"]

Shape = tuple[int, ...]
PROBED = 64  # rows among which the first readable one gives the event


def decode(data: bytes | Path, event: Shape | None = None) -> Array | str:
    """An image as uint8 [C, H, W], or why it is none.

    Args:
        data: the file's bytes, or its path.
        event: (C, H, W) that it must have, None for any: C = 1 where it is grey, else 3.
    """
    image_module = needed("PIL.Image", "jobs")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures: their size is compared below
            file = io.BytesIO(data) if isinstance(data, bytes) else data
            with image_module.open(file, formats=("PNG", "JPEG")) as image:
                if trouble := _trouble(image, event):
                    return trouble
                grey = event[0] == 1 if event else image.mode in GREY
                pixels = np.asarray(image.convert("L" if grey else "RGB"))
    except Exception as error:  # arbitrary bytes make a decoder raise anything
        return _reason(error)
    return pixels[None] if grey else pixels.transpose(2, 0, 1)


def _trouble(image: object, event: Shape | None) -> str:
    """What is known from the header alone, so that nothing large is decoded in vain."""
    mode, (width, height) = image.mode, image.size  # type: ignore[attr-defined]
    if mode.partition(";")[0] in DEEP:
        return f"more than 8 bits per channel (mode {mode})"
    if event is None:
        return ""
    if (height, width) != tuple(event[1:]):
        return f"{width}x{height} pixels (width x height), not {event[2]}x{event[1]}"
    return f"in colour (mode {mode}), not grey" if event[0] == 1 and mode not in GREY else ""


def _reason(error: Exception) -> str:
    """One line that is the same wherever and whenever the image is read."""
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot be read: {error.strerror or type(error).__name__}"
    text = str(error).partition("\n")[0]
    if "cannot identify" in text or " at 0x" in text or not text:
        return "no readable PNG or JPEG image"
    return f"no readable PNG or JPEG image: {text}"


def stacked(rows: Sequence[tuple[int, Array | str]], event: Shape) -> Raw:
    """Rows that are arrays of one shape, and the reasons of those that are not."""
    good, failed = [], {}
    for index, found in rows:
        if isinstance(found, str):
            failed[index] = found
        elif found.shape != tuple(event):
            failed[index] = f"shape {listed(found.shape)}, not {listed(event)}"
        else:
            good.append((index, found))
    kinds = {x.dtype for _, x in good}
    x = np.stack([x for _, x in good]) if good else np.zeros((0, *event), np.uint8)
    if len(kinds) > 1:  # np.stack would mix bytes and floats
        raise TypeError(f"rows must have one type, got {' and '.join(sorted(map(str, kinds)))}")
    return Raw(x, np.array([index for index, _ in good], np.int64), failed)


class ImageSource(RawSource):
    """Rows that are images; a kind of container says where each one's bytes lie."""

    def __init__(self, name: str, length: int, box: Box | None, event: Shape | None) -> None:
        self.length, self.box = length, box or UNIT
        finite_for_bytes(np.uint8, self.box, name)
        self.event_shape = event or first_shape(name, length, lambda k: decode(self.image(k)))
        if len(self.event_shape) != 3 or self.event_shape[0] not in (1, 3):
            raise ValueError(
                f"{name} holds images, grey [1, H, W] or in colour [3, H, W], not "
                f"{listed(self.event_shape)}; give the model such inputs"
            )

    @abstractmethod
    def image(self, index: int) -> bytes | Path:
        """Where one image is: its bytes or its path.

        Raises:
            ValueError: it is not there; with the reason.
        """

    def raw(self, start: int, stop: int) -> Raw:
        return stacked([(k, self._decoded(k)) for k in range(start, stop)], self.event_shape)

    def _decoded(self, index: int) -> Array | str:
        try:
            data = self.image(index)
        except ValueError as error:
            return str(error)
        return decode(data, self.event_shape)


def first_shape(name: str, length: int, row: Callable[[int], Array | str]) -> Shape:
    """Of the first readable row.

    Raises:
        ValueError: none of the first rows can be read.
    """
    first = ""
    for index in range(min(length, PROBED)):
        try:
            found = row(index)
        except ValueError as error:
            found = str(error)
        if not isinstance(found, str):
            return found.shape
        first = first or found
    raise ValueError(
        f"{name}: none of the first {min(length, PROBED)} rows can be read (row 0: {first}); "
        "put them in order, or name the shape of an input (event_shape=)"
    )


class FolderSource(ImageSource):
    """The images below a folder, in the order of their sorted relative paths.

    Names of sub-folders are classes where all images lie in some; ``train`` and ``test`` are the
    splits. The names take about 40 bytes of memory per image.
    """

    def __init__(
        self,
        folder: Path,
        box: Box | None,
        event: Shape | None,
        split: str,
        labels: Callable[[int], Labels] | None,
    ) -> None:
        both = all((folder / name).is_dir() for name in SPLITS)
        self.folder = folder / split if both else folder
        names = _sorted_names(self.folder)
        self._blob = b"".join(name.encode("utf-8", "surrogateescape") for name in names)
        lengths = [len(name.encode("utf-8", "surrogateescape")) for name in names]
        self._ends = np.cumsum(lengths, dtype=np.int64)
        self.y, self.classes = labels(len(names)) if labels else _classes(self.folder, names)
        super().__init__(str(self.folder), len(names), box, event)
        self.description = {"kind": "path", "path": str(folder.absolute()), "split": split}

    @property
    def fingerprint(self) -> str:  # type: ignore[override]
        names = [self.name(k) for k in range(len(self))]
        files = [File.of(self.folder / name, name) for name in names]
        return files_digest(files, self.box, self.event_shape)

    def name(self, index: int) -> str:
        """Relative path of one image."""
        start = int(self._ends[index - 1]) if index else 0
        return self._blob[start : int(self._ends[index])].decode("utf-8", "surrogateescape")

    def image(self, index: int) -> Path:
        return self.folder / self.name(index)


def _sorted_names(folder: Path) -> list[str]:
    names = sorted(_walk(folder, ""), key=lambda name: name.split("/"))
    if not names:
        raise ValueError(f"{folder} holds no images; they end in {', '.join(IMAGES)}")
    return names


def _walk(folder: Path, prefix: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _walk(Path(entry.path), f"{prefix}{entry.name}/")
            elif entry.name.lower().endswith(IMAGES):
                yield prefix + entry.name


def _classes(folder: Path, names: Sequence[str]) -> Labels:
    heads = [name.partition("/")[0] if "/" in name else None for name in names]
    if all(head is None for head in heads):
        return NONE
    if None in heads:
        below = next(head for head in heads if head)
        raise ValueError(
            f"{folder} holds images and sub-folders with images ({below}); move one of the two "
            "elsewhere"
        )
    found = sorted(set(heads))  # type: ignore[type-var]
    place = {name: k for k, name in enumerate(found)}
    y = np.fromiter((place[head] for head in heads), np.int64, len(heads))
    return compact((y, tuple(map(str, found))))
