"""The data that an experiment takes: images in [0, 1], told by their contents."""

from __future__ import annotations

import hashlib

from torch import Tensor

from vaefast.data import Dataset

__all__ = ["check_count", "check_images", "contents"]


def check_images(data: Dataset, name: str) -> None:
    """Images in [0, 1].

    Raises:
        ValueError: others.
    """
    if not data.images:
        shape = list(data.x_test.shape[1:])
        raise ValueError(f"--data {name} has inputs of shape {shape}; images are needed")
    if (data.low, data.high) != (0.0, 1.0):
        raise ValueError(
            f"--data {name} has values from {data.low:g} to {data.high:g}; the published "
            "models take [0, 1]"
        )


def check_count(data: Dataset, name: str, train_inputs: int | None) -> None:
    """At least as many training inputs as are wanted.

    Raises:
        ValueError: fewer.
    """
    if (train_inputs or 0) > len(data.x_train):
        raise ValueError(
            f"--train-inputs must be at most {len(data.x_train)} for --data {name}, got "
            f"{train_inputs}"
        )


def contents(*tensors: Tensor) -> str:
    """A hash of the inputs that a run sees, by which other contents of one name are told."""
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(f"{list(tensor.shape)}".encode())
        total.update(tensor.contiguous().numpy().tobytes())
    return total.hexdigest()[:16]
