"""NumPy files, without pickled objects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vaefast.data.dataset import Array, reading

__all__ = ["read_arrays"]


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
            loaded = np.load(file, allow_pickle=False)
        except ValueError as error:
            raise ValueError(_reason(str(error))) from error
        if isinstance(loaded, np.ndarray):
            return {"x": loaded}, ["x"]
        with loaded:
            wanted = loaded.files if keys is None else [key for key in keys if key in loaded.files]
            return {key: loaded[key] for key in wanted}, loaded.files


def _reason(text: str) -> str:
    """NumPy's own text advises to unpickle the file, or speaks of its own reshape."""
    if "pickle" in text:
        return "it holds no plain arrays"
    return "it ends too early" if "reshape" in text or "EOF" in text else text
