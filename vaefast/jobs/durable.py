"""Files of a run that are whole or not there, whoever writes beside us and whatever kills us."""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from vaefast.runtime.durable import sync_folder

__all__ = [
    "PART",
    "append_line",
    "checksum",
    "explained",
    "file_checksum",
    "read_lines",
    "replace_whole",
]

PART = ".part"  # ends the name of a file that is not whole yet
BLOCK = 1 << 20  # bytes of a file that are in memory at once
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


def replace_whole(path: Path, data: bytes, *, lasting: bool = True) -> None:
    """Write a file under a name of its own beside ``path``, and rename it.

    Args:
        path: of the file; whatever stood there stays until the new one is whole.
        data: its bytes.
        lasting: whether it must survive a loss of power: file and folder are synced.

    Raises:
        OSError: it cannot be written, with what to do.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PART}")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            if lasting:
                os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise explained(error, path) from error
    finally:
        with suppress(OSError):  # where it was renamed it is gone
            beside.unlink(missing_ok=True)
    if lasting:
        sync_folder(path.parent)


def append_line(path: Path, entry: Mapping[str, Any]) -> None:
    """Add a line of JSON to a file of one writer, and sync it.

    Raises:
        OSError: it cannot be written, with what to do.
    """
    new = not path.exists()
    try:
        with path.open("ab") as file:
            if not new and file.tell() and _torn(path):
                file.write(b"\n")  # what a killed or a full write left ends here
            file.write(json.dumps(entry, sort_keys=True).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise explained(error, path) from error
    if new:
        sync_folder(path.parent)


def _torn(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of such a file; one that was cut off says nothing."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    for line in data.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            yield entry


def checksum(*parts: bytes | memoryview) -> str:
    """xxh3 of 128 bits of some bytes, as hexadecimal text."""
    import xxhash

    value = xxhash.xxh3_128()
    for part in parts:
        value.update(part)
    return value.hexdigest()


def file_checksum(path: Path) -> str:
    """:func:`checksum` of a file's bytes, of which few are in memory at once."""
    import xxhash

    value = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            value.update(block)
    return value.hexdigest()


def explained(error: OSError, path: Path) -> OSError:
    """The error in one line with the file and the way out."""
    if error.errno in FULL:
        what = "the disk is full; free some space, then vaefast jobs resume goes on"
    elif error.errno in READ_ONLY:
        what = "the folder cannot be written; mend its permissions or mount, then resume"
    else:
        return error
    found = type(error)(error.errno, what)
    found.filename = str(path)
    return found
