"""Tar files as WebDataset writes them: members of one key are a sample."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vaefast.data.dataset import reading
from vaefast.data.folders import IMAGES
from vaefast.data.values import Box
from vaefast.jobs.sources.content import File, files_digest, needed
from vaefast.jobs.sources.images import ImageSource
from vaefast.jobs.sources.labels import Labels, compact, open_labels

__all__ = ["TarSource", "expand"]

LABEL = "cls"
SUFFIXES = tuple(suffix.lstrip(".") for suffix in IMAGES)
ABSENT = -1


class Place(NamedTuple):
    """Where a sample's image lies: its file, the offset of its bytes, and how many they are."""

    file: int
    offset: int
    size: int


class TarSource(ImageSource):
    """Samples of plain tar files, in the order of the files and of their members.

    An index of offsets, 24 bytes per sample, is made when the source is opened, from the members'
    headers alone; a shard reads its own members. The key of a sample, its members and the braces
    in names are those of ``webdataset``. A sample's image is its .png, .jpg or .jpeg, its class the
    whole number in its .cls.

    Args:
        paths: of the files.
        box: of valid entries.
        event: of one row; by default that of the first readable one.
        labels: a file of labels, in place of the .cls members.
        name: as the user named the files.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        box: Box | None,
        event: tuple[int, ...] | None,
        labels: str | None,
        name: str,
    ) -> None:
        self._files = [File.of(path) for path in paths]
        samples = [sample for k, path in enumerate(paths) for sample in _samples(path, k)]
        if not samples:
            raise ValueError(f"{name} holds no samples")
        self._places = np.array([place for place, _ in samples], np.int64)
        self.y, self.classes = (
            _classes([label for _, label in samples], name)
            if labels is None
            else open_labels(labels, len(samples))
        )
        self._handle: tuple[int, int] | None = None  # the open file, and its descriptor
        super().__init__(name, len(samples), box, event)
        self.description = {"kind": "path", "path": name}

    @property
    def fingerprint(self) -> str:  # type: ignore[override]
        return files_digest(self._files, self.box, self.event_shape)

    def image(self, index: int) -> bytes:
        place = Place(*map(int, self._places[index]))
        if place.offset == ABSENT:
            raise ValueError(f"no member that ends in {', '.join(IMAGES)}")
        return os.pread(self._open(place.file), place.size, place.offset)

    def _open(self, file: int) -> int:
        if self._handle is None or self._handle[0] != file:
            self.close()
            self._files[file].check()
            self._handle = file, os.open(self._files[file].path, os.O_RDONLY)
        return self._handle[1]

    def close(self) -> None:
        if self._handle is not None:
            os.close(self._handle[1])
            self._handle = None

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            self.close()


def expand(name: str) -> list[Path]:
    """The files of ``shards/{0000..0146}.tar``."""
    found = needed("webdataset.shardlists", "webdataset").expand_urls(name)
    return [Path(each).expanduser().absolute() for each in found]


def _samples(path: Path, file: int) -> Iterator[tuple[Place, bytes | None]]:
    """Where each sample's image lies, and what its .cls holds."""
    grouped = needed("webdataset.tariterators", "webdataset").group_by_keys
    with reading(path, "plain tar file"), tarfile.open(path, "r:") as tar:
        for sample in grouped(_members(tar)):
            image = next((sample[suffix] for suffix in SUFFIXES if suffix in sample), None)
            label = sample.get(LABEL)
            place = Place(file, ABSENT, 0) if image is None else Place(file, *image)
            yield place, None if label is None else _bytes(tar, *label)


def _members(tar: tarfile.TarFile) -> Iterator[dict[str, Any]]:
    """Name, offset and size of every regular file, as ``webdataset`` passes on its content."""
    while (member := tar.next()) is not None:
        tar.members = []  # type: ignore[attr-defined]  # else it keeps all headers
        if member.isreg() and not member.name.startswith("__"):
            place = (member.offset_data, member.size)
            yield {"fname": member.name, "data": place, "__url__": str(tar.name)}


def _bytes(tar: tarfile.TarFile, offset: int, size: int) -> bytes:
    file: Any = tar.fileobj
    before = file.tell()
    file.seek(offset)
    found = file.read(size)
    file.seek(before)
    return found


def _classes(cells: Sequence[bytes | None], name: str) -> Labels:
    """Classes of all samples, -1 where a sample has no .cls; None where none has."""
    if all(cell is None for cell in cells):
        return None, ()
    try:
        y = np.array([ABSENT if cell is None else int(cell) for cell in cells], np.int64)
    except ValueError:
        bad = next(cell for cell in cells if cell is not None and not cell.strip().isdigit())
        raise ValueError(
            f"{name}: a .cls must hold a whole number, got {bad[:20]!r}; name a file of labels "
            "instead (--labels)"
        ) from None
    return compact((y, ())) if y.min() >= 0 else (y.astype(np.int32), ())
