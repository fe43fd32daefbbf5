"""The known data sets: digits, and MNIST, Fashion-MNIST and CIFAR-10 in torchvision's layout."""

from __future__ import annotations

import gzip
import math
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vaefast.data.dataset import Array, Dataset, dataset, reading

__all__ = ["IDX", "KNOWN", "read_bytes"]

IDX = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}  # names, and their folders


def _load_digits(root: Path) -> Dataset:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ImportError("digits come with scikit-learn; pip install scikit-learn") from None
    digits = load_digits()
    x, y = digits.images[:, None] / 16.0, digits.target
    test = np.zeros(len(y), bool)
    for label in range(10):
        test[np.flatnonzero(y == label)[::5]] = True  # every fifth image of a class
    return dataset("digits", (x[~test], y[~test]), (x[test], y[test]))


def _load_mnist(root: Path) -> Dataset:
    return _load_idx("mnist", root)


def _load_fashion_mnist(root: Path) -> Dataset:
    return _load_idx("fashion-mnist", root)


def _load_idx(name: str, root: Path) -> Dataset:
    paths = _idx_files(name, root)
    return dataset(name, _read_labelled(*paths[:2]), _read_labelled(*paths[2:]))


def read_bytes(name: str, root: Path, split: str) -> tuple[Array, Array]:
    """One split of "mnist" or "fashion-mnist" as it is kept: uint8 images [n, 1, 28, 28], labels.

    Raises:
        FileNotFoundError, ValueError: as :func:`vaefast.data.load`.
    """
    paths = _idx_files(name, root)
    return _read_labelled(*(paths[:2] if split == "train" else paths[2:]))


def _idx_files(name: str, root: Path) -> list[Path]:
    """Images and labels of the training set, then of the test set."""
    folder = IDX[name]
    kinds = ("images-idx3-ubyte", "labels-idx1-ubyte")
    files = [f"{split}-{kind}" for split in ("train", "t10k") for kind in kinds]
    found = {file: _plain_or_gz(root / folder / "raw" / file) for file in files}
    missing = [f"{file} (or {file}.gz)" for file, path in found.items() if path is None]
    if missing:
        raise _missing(name, root, f"{folder}/raw", missing)
    return [path for path in found.values() if path]


def _plain_or_gz(path: Path) -> Path | None:
    candidates = (path, path.with_name(f"{path.name}.gz"))
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _read_labelled(image_path: Path, label_path: Path) -> tuple[Array, Array]:
    images, labels = _read_idx(image_path, rank=3), _read_idx(label_path, rank=1)
    if images.size == 0:
        raise ValueError(f"{image_path} holds no images, its sizes are {list(images.shape)}")
    if len(images) != len(labels):
        raise ValueError(
            f"{image_path} has {len(images)} images, {label_path.name} {len(labels)} labels"
        )
    return images[:, None], labels


def _read_idx(path: Path, *, rank: int) -> Array:
    """An idx file of bytes: 0, 0, the type 8, the rank, big-endian int32 sizes, then the bytes."""
    start = 4 + 4 * rank
    with reading(path, f"idx file of {rank} dimensions"):
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
        if len(raw) < start or raw[:4] != bytes((0, 0, 8, rank)):
            raise ValueError("its header is another")
        sizes = [int.from_bytes(raw[at : at + 4], "big") for at in range(4, start, 4)]
        if len(raw) - start != math.prod(sizes):
            raise ValueError(f"it has {len(raw) - start} of {math.prod(sizes)} bytes")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(sizes)


def _load_cifar10(root: Path) -> Dataset:
    folder = root / "cifar-10-batches-py"
    present = [path for n in range(1, 6) if (path := folder / f"data_batch_{n}").is_file()]
    missing = [] if present else ["data_batch_1 to data_batch_5"]
    if not (folder / "test_batch").is_file():
        missing.append("test_batch")
    if missing:
        raise _missing("cifar10", root, folder.name, missing)
    xs, ys = zip(*(_read_batch(path) for path in present))
    note = "" if len(present) == 5 else f"CIFAR-10 with {len(present)} of five training batches."
    train = (np.concatenate(xs), np.concatenate(ys))
    return dataset("cifar10", train, _read_batch(folder / "test_batch"), note)


class _ArrayUnpickler(pickle.Unpickler):
    """Reads NumPy arrays and Python's own data; a pickle that names any other global is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not allowed")
        return _ALLOWED[module, name]


_reconstruct = np.empty(0).__reduce__()[0]
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


def _read_batch(path: Path) -> tuple[Array, Array]:
    """One CIFAR-10 batch: uint8 [n, 3, 32, 32] and labels [n]."""
    with reading(path, "CIFAR-10 batch"), path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy 2 warns of the old dtype in these files
        batch = _ArrayUnpickler(file, encoding="bytes").load()
        x, y = batch[b"data"], np.asarray(batch[b"labels"])
        if x.dtype != np.uint8 or x.shape != (len(y), 3072) or not np.isin(y, range(10)).all():
            raise ValueError("it does not hold uint8 [n, 3072] and n labels from 0 to 9")
    return x.reshape(-1, 3, 32, 32), y


def _missing(name: str, root: Path, folder: str, files: list[str]) -> FileNotFoundError:
    return FileNotFoundError(
        f"{name} needs {', '.join(files)} in {root / folder}; put the files there, or name the "
        f"folder that holds {folder} with --data-root or the environment variable VAEFAST_DATA"
    )


KNOWN: dict[str, Callable[[Path], Dataset]] = {
    "digits": _load_digits,
    "mnist": _load_mnist,
    "fashion-mnist": _load_fashion_mnist,
    "cifar10": _load_cifar10,
}
