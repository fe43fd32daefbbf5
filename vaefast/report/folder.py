"""Write a folder or a file so that it appears whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["MADE_BY", "REPORT_FILES", "new_file", "new_folder"]

MADE_BY = "vaefast audit"  # summary.json["made_by"]: how a report is told from a foreign folder
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
ROOM = 1 << 20  # bytes that a result takes at least
REPORT_FILES = ("report.html", "results.parquet", "summary.json", "model.safetensors")


@contextmanager
def new_folder(out: Path, *, force: bool = False) -> Iterator[Path]:
    """A temporary folder beside ``out`` that takes its place when the body ends well.

    Everything that can be refused is refused on entry, before any work. A body that raises leaves
    ``out`` as it was and nothing beside it.

    Args:
        out: where the finished folder shall stand; missing parents are made.
        force: replace an earlier vaefast report. Any other folder is refused, so that no foreign
            file is ever deleted.

    Raises:
        FileExistsError: ``out`` exists and must not be replaced.
        PermissionError: ``out`` cannot be written.
        OSError: the disk is full, on entry or when the body writes.
    """
    out = out.resolve()
    _refuse_folder(out, force=force)
    with _workplace(out) as place:
        new = place / out.name
        new.mkdir()
        yield new
        _refuse_folder(out, force=force)  # again: it may have come or changed meanwhile
        _swap(new, out, place / "old")


@contextmanager
def new_file(out: Path, *, force: bool = False) -> Iterator[Path]:
    """A temporary path beside ``out`` that takes its place when the body ends well.

    Raises:
        FileExistsError: ``out`` is a folder, or exists and ``force`` is not given.
        PermissionError: the folder of ``out`` cannot be written.
        OSError: the disk is full, on entry or when the body writes.
    """
    out = out.resolve()
    if out.is_dir():
        raise FileExistsError(f"--out {out} is a folder; name a file")
    if out.exists() and not force:
        raise FileExistsError(f"--out {out} exists; pass --force to replace it")
    with _workplace(out) as place:
        yield place / out.name
        os.replace(place / out.name, out)


def _refuse_folder(out: Path, *, force: bool) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise FileExistsError(f"--out {out} is a file; name a folder that does not exist yet")
    if not force:
        raise FileExistsError(f"--out {out} exists; pass --force to replace it, or name another")
    names = sorted(path.name for path in out.iterdir())
    foreign = [name for name in names if name not in REPORT_FILES]
    if foreign or (names and not _is_report(out)):
        reason = f"it holds {foreign[0]!r}" if foreign else "it has no summary.json of ours"
        raise FileExistsError(
            f"--out {out} is not a vaefast report ({reason}), and --force replaces nothing else; "
            "name another folder"
        )


def _is_report(folder: Path) -> bool:
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(summary, dict) and summary.get("made_by") == MADE_BY


def _swap(new: Path, out: Path, old: Path) -> None:
    """Rename ``new`` to ``out``; what stood there waits at ``old`` until the new one stands."""
    if not out.exists():
        new.rename(out)
        return
    out.rename(old)
    try:
        new.rename(out)
    except BaseException:
        old.rename(out)
        raise


@contextmanager
def _workplace(out: Path) -> Iterator[Path]:
    """A hidden folder beside ``out``, gone at the end, with the parents that were made for it."""
    made = [path for path in (*reversed(out.parent.parents), out.parent) if not path.exists()]
    place = out.parent / f".{out.name}-{secrets.token_hex(4)}"
    try:  # the names come first: an interruption may come as soon as a folder stands
        _make((*made, place), out)
        _try_to_write(place)
        yield place
    except OSError as error:
        named = error.filename is not None and Path(error.filename).is_relative_to(place)
        if not named and not (error.filename is None and error.errno in FULL):
            raise
        raise _unwritable(out, error) from error
    finally:
        shutil.rmtree(place, ignore_errors=True)
        _remove_empty(made)


def _make(folders: Sequence[Path], out: Path) -> None:
    try:
        for folder in folders:
            folder.mkdir(exist_ok=folder != folders[-1])
    except OSError as error:
        raise _unwritable(out, error) from error


def _try_to_write(place: Path) -> None:
    """A full disk is found before the work, not after it."""
    probe = place / "probe"
    probe.write_bytes(bytes(ROOM))
    probe.unlink()


def _unwritable(out: Path, error: OSError) -> OSError:
    """The error with the path that the caller named, and what to do where the disk is full."""
    full = error.errno in FULL
    reason = str(error.strerror or error).partition("Detail: ")[2] or error.strerror or str(error)
    way_out = "; free some space, or name a path on another disk" if full else ""
    kind = OSError if full else PermissionError
    return kind(f"--out {out} cannot be written: {reason}{way_out}")


def _remove_empty(folders: Sequence[Path]) -> None:
    for folder in reversed(folders):
        with suppress(OSError):  # it is not there, or somebody's by now
            folder.rmdir()
