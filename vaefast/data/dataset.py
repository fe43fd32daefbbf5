"""What every data set is read into, and the checks that its arrays pass."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["Array", "Dataset", "dataset", "pixels", "reading"]

Array = np.ndarray


class Dataset(NamedTuple):
    """Inputs in [0, 1] with a train/test split.

    Args:
        name: of the set, or of the user's file.
        x_train, x_test: float32, [n, C, H, W]; [n, D] where a file holds flat inputs.
        y_train, y_test: int64 [n], None without labels.
        note: what a report must say about the data, "" if nothing.
    """

    name: str
    x_train: Tensor
    y_train: Tensor | None
    x_test: Tensor
    y_test: Tensor | None
    note: str


def dataset(
    name: str,
    train: tuple[Array, Array | None],
    test: tuple[Array, Array | None],
    note: str = "",
) -> Dataset:
    """Images (uint8, or floats in [0, 1]) and labels as tensors."""
    return Dataset(
        name, pixels(train[0]), _classes(train[1]), pixels(test[0]), _classes(test[1]), note
    )


def pixels(x: Array) -> Tensor:
    """uint8 over 255, or floats, as float32."""
    scale = 255.0 if x.dtype == np.uint8 else 1.0
    return torch.from_numpy(x.astype(np.float32)).div_(scale)


def _classes(y: Array | None) -> Tensor | None:
    return None if y is None else torch.from_numpy(y.astype(np.int64))


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Turns whatever arbitrary bytes make a parser raise into one line that names the file."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile):
            raise
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path} is not a readable {kind}: {reason}") from None
