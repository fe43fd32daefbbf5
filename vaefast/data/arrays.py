"""NumPy files, without pickled objects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vaefast.data.dataset import Array, reading

__all__ = ["read_arrays"]

NPY, ZIP = b"\x93NUMPY", b"PK\x03\x04"  # how the two kinds begin


def read_arrays(
    path: Path, keys: Sequence[str] | None = None
) -> tuple[dict[str, Array], list[str]]:
    """Those arrays of ``keys`` that a file holds, by default all, and the names of all.

    The array of an .npy is called x.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is corrupted or holds pickled objects; one line.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no data file {path}")
    with reading(path, "NumPy file (without pickled objects)"), path.open("rb") as file:
        try:
            return _arrays(np.load(file, allow_pickle=False), keys)
        except Exception as error:
            raise ValueError(_reason(_start(path), str(error)) or str(error)) from error


def _arrays(loaded: Any, keys: Sequence[str] | None) -> tuple[dict[str, Array], list[str]]:
    if isinstance(loaded, np.ndarray):
        return {"x": loaded}, ["x"]
    with loaded:
        if any(name.endswith("/data.pkl") for name in loaded.files):
            raise ValueError("it is one of torch.save; save the tensor's x.numpy() with np.save")
        wanted = loaded.files if keys is None else [key for key in keys if key in loaded.files]
        return {key: loaded[key] for key in wanted}, loaded.files


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(6)


def _reason(start: bytes, text: str) -> str:
    """What is wrong with a file of these first bytes, where NumPy's own words mislead.

    They advise to unpickle the file, or speak of NumPy's own reshape.
    """
    if not start:
        return "it is empty"
    if "Object arrays" in text:
        return "it holds Python objects; save y.astype(str), or numbers of one type"
    if not start.startswith((NPY[: len(start)], ZIP[: len(start)])):
        return "it is none by its first bytes; write it with np.save or np.savez"
    cut = ("reshape", "EOF", "Failed to read", "not a zip file", "pickle", "expected")
    if any(word in text for word in cut):
        return "it ends too early; copy it again, or save it again"
    return f"it is damaged; copy it again, or save it again ({text})" if "CRC" in text else ""
