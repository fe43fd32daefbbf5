"""What files hold, in one number that is cheap to take of terabytes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np

__all__ = ["COVERS", "File", "files_digest", "needed", "xxhash"]

WHOLE = 256 << 20  # bytes in all up to which every byte is read
BLOCK, BLOCKS = 64 << 10, 256  # of larger sets: bytes of a sample, and how many
COVERS = (
    "names, sizes and every byte of up to 256 MiB of files; of more, names, sizes, times of the "
    "last change, and 256 blocks of 64 KiB, evenly spaced, the first and the last among them"
)


class File(NamedTuple):
    """A file as it was when it was opened."""

    name: str  # relative to what the user named, so that a set may be moved
    path: Path
    size: int
    changed: int  # time of the last change, ns

    @classmethod
    def of(cls, path: Path, name: str | None = None) -> File:
        """Raises FileNotFoundError where there is no such file."""
        if not path.is_file():
            raise FileNotFoundError(f"no data file {path}")
        found = path.stat()
        return cls(name or path.name, path, found.st_size, found.st_mtime_ns)

    def check(self) -> None:
        """Raises OSError where the file is gone or another one since."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            raise OSError(f"{self.path} is gone since the run opened it; put it back") from None
        if (found.st_size, found.st_mtime_ns) != (self.size, self.changed):
            raise OSError(
                f"{self.path} changed since the run opened it; its rows would not be those of the "
                "fingerprint, so start a new run"
            )


def files_digest(files: Sequence[File], *facts: object) -> str:
    """xxh3 of 128 bits of what ``COVERS`` says, and of facts beside the files; hexadecimal."""
    digest = xxhash().xxh3_128(repr(facts).encode())
    total = sum(file.size for file in files)
    for file in files:
        digest.update(f"{file.name}\0{file.size}\0".encode())
        if total > WHOLE:
            digest.update(f"{file.changed}\0".encode())
    for file, start, length in _all(files) if total <= WHOLE else _samples(files, total):
        digest.update(_read(file.path, start, length))
    return digest.hexdigest()


def _all(files: Sequence[File]) -> list[tuple[File, int, int]]:
    step = 16 << 20
    return [(f, at, min(step, f.size - at)) for f in files for at in range(0, f.size, step)]


def _samples(files: Sequence[File], total: int) -> list[tuple[File, int, int]]:
    """Blocks at places evenly spaced over all files, one after the other."""
    ends = np.cumsum([file.size for file in files])
    places = np.linspace(0, total - BLOCK, BLOCKS).astype(np.int64)
    found = []
    for place in places:
        k = int(np.searchsorted(ends, place, side="right"))
        start = int(place - ends[k] + files[k].size)
        found.append((files[k], start, min(BLOCK, files[k].size - start)))
    return found


def _read(path: Path, start: int, length: int) -> bytes:
    handle = os.open(path, os.O_RDONLY)
    try:
        return os.pread(handle, length, start)
    finally:
        os.close(handle)


def xxhash() -> ModuleType:
    return needed("xxhash", "jobs")


def needed(name: str, extra: str) -> ModuleType:
    """A package of an extra.

    Raises:
        ImportError: it is not installed; with the line that installs it.
    """
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(f"this needs {name} ({error}); pip install 'vaefast[{extra}]'") from None
