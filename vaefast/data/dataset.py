"""What every data set is read into."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["Array", "Arrays", "Dataset", "dataset", "reading"]

Array = np.ndarray


class Dataset(NamedTuple):
    """Inputs with a train/test split, the box of their valid values, and their classes.

    Args:
        name: of the set, or of the user's file or folder.
        x_train, x_test: float32, [n, C, H, W]; [n, D] where a file holds flat inputs.
        y_train, y_test: int64 [n], None without labels.
        note: what a report must say about the data, "" if nothing.
        low, high: smallest and largest valid entry; infinite where a table has no box.
        classes: names of the classes 0, 1, ..., empty where labels came as numbers.
    """

    name: str
    x_train: Tensor
    y_train: Tensor | None
    x_test: Tensor
    y_test: Tensor | None
    note: str
    low: float = 0.0
    high: float = 1.0
    classes: tuple[str, ...] = ()

    @property
    def images(self) -> bool:
        """Whether the inputs have channels, height and width."""
        return self.x_test.ndim == 4


class Arrays(NamedTuple):
    """What a file or a folder holds before it is checked."""

    x: Array
    y: Array | None = None
    x_test: Array | None = None
    y_test: Array | None = None
    note: str = ""


def dataset(
    name: str,
    train: tuple[Array, Array | None],
    test: tuple[Array, Array | None],
    note: str = "",
) -> Dataset:
    """A known set: images (uint8, which are divided by 255, or floats in [0, 1]) and labels."""
    x_train, x_test = (_unit(x) for x, _ in (train, test))
    return Dataset(name, x_train, _classes(train[1]), x_test, _classes(test[1]), note)


def _unit(x: Array) -> Tensor:
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
        if isinstance(error, OSError) and error.errno is not None:
            raise
        if isinstance(error, ModuleNotFoundError):
            raise
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path} is not a readable {kind}: {reason}") from None
