"""Image data sets: scikit-learn's digits, MNIST, Fashion-MNIST, CIFAR-10, and the user's files."""

from __future__ import annotations

import os
from pathlib import Path

from vaefast.data.dataset import Dataset
from vaefast.data.files import load_file
from vaefast.data.known import KNOWN

__all__ = ["Dataset", "load"]


def load(
    name_or_path: str | os.PathLike[str], *, root: str | os.PathLike[str] | None = None
) -> Dataset:
    """Read a known data set by name, or the user's .npy or .npz file by path.

    A file holds ``x`` (the only array of an .npy): [n, C, H, W], [n, H, W] or flat [n, D]; uint8,
    which is divided by 255, bool, or floats in [0, 1]. An .npz may add the labels ``y``, and a
    test set ``x_test``, ``y_test``; without it a fixed fifth of the rows is the test set.

    Args:
        name_or_path: "digits", "mnist", "fashion-mnist", "cifar10", or a path.
        root: folder of the known sets, in the layout of torchvision; by default that of the
            environment variable VAEFAST_DATA, else ./data. Digits come with scikit-learn.

    Raises:
        FileNotFoundError: a file is missing; the message says which, and where it belongs.
        ValueError: an unknown name, a corrupted file, or values that are no images in [0, 1].
        ImportError: "digits" without scikit-learn.
    """
    name = os.fspath(name_or_path)
    if name in KNOWN:
        return KNOWN[name](Path(root or os.environ.get("VAEFAST_DATA") or "data").expanduser())
    if name.endswith((".npy", ".npz")):
        return load_file(Path(name).expanduser())
    raise ValueError(
        f"data must be {', '.join(KNOWN)}, or a path that ends in .npy or .npz; got {name!r}"
    )
