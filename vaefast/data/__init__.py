"""Data sets: scikit-learn's digits, MNIST, Fashion-MNIST, CIFAR-10, and the user's own inputs."""

from __future__ import annotations

import math
import os
from pathlib import Path

from vaefast import checks
from vaefast.data.dataset import Dataset
from vaefast.data.files import FORMATS, load_path, relabelled
from vaefast.data.folders import IMAGES
from vaefast.data.known import KNOWN
from vaefast.data.values import UNIT, Box, box_of

__all__ = ["Dataset", "load"]

REMEDIES = (
    ((".pt", ".pth"), "np.save('x.npy', torch.load({}, weights_only=True).numpy())"),
    ((".pkl", ".pickle"), "unpickle it where you trust it, and np.save('x.npy', x)"),
    ((".mat", ".h5", ".hdf5"), "read it with scipy or h5py, and np.save('x.npy', x)"),
    ((".safetensors",), "a model goes to --model"),
    (IMAGES, "name the folder that the images lie in"),
    ((".gz", ".zip", ".tar", ".tgz"), "unpack it first"),
)


def load(
    name_or_path: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    low: float | None = None,
    high: float | None = None,
    labels: str | os.PathLike[str] | None = None,
    split: str = "always",
) -> Dataset:
    """Read a known data set by name, or the user's file or folder by path.

    - .npy or .npz: ``x`` or ``x_train`` (the only array of an .npy): [n, C, H, W], [n, H, W] or
      flat [n, D]; uint8, which is mapped to [low, high], bool, or floats. An .npz may add the
      labels ``y`` or ``y_train``, and a test set ``x_test``, ``y_test``.
    - .csv or .parquet: numeric columns, [n, D].
    - a folder of PNG or JPEG images of one size; where it has only sub-folders, their names are
      the labels; ``train`` and ``test`` sub-folders are the two splits. Grey where all are grey,
      else RGB.

    Without a test set a fixed fifth of the rows is the test set.

    Args:
        name_or_path: "digits", "mnist", "fashion-mnist", "cifar10", or a path.
        root: folder of the known sets, in the layout of torchvision; by default that of the
            environment variable VAEFAST_DATA, else ./data. Digits come with scikit-learn.
        low, high: smallest and largest valid entry, by default 0 and 1. Floats must lie in
            between; uint8 and known sets are mapped to it. A table [n, D] with values outside
            [0, 1] has no box unless one is given.
        labels: a file of one label per input, those of the test set last: .npy, .txt, .npz
            (``:key``), .csv or .parquet (``:column``). Whole numbers, or text, whose sorted names
            become the classes 0, 1, ...
        split: whether a file without a test set is split: "always", "labelled" (where there are
            labels), or "never"; unsplit, all rows are both sets.

    Raises:
        FileNotFoundError: a file is missing; the message says which, and where it belongs.
        ValueError: an unknown name, a corrupted file, or values outside the box.
        ImportError: "digits" without scikit-learn, images without Pillow, parquet without pyarrow.
    """
    checks.option(split, "split", ("always", "labelled", "never"))
    name, box = os.fspath(name_or_path), box_of(low, high)
    spec = None if labels is None else os.fspath(labels)
    if name in KNOWN:
        place = Path(root or os.environ.get("VAEFAST_DATA") or "data").expanduser()
        found = _mapped(KNOWN[name](place), box or UNIT)
        return found if spec is None else relabelled(found, spec)
    path = Path(name).expanduser()
    if path.is_dir() or path.suffix.lower() in FORMATS:
        return load_path(path, box=box, labels=spec, split=split)
    raise ValueError(
        f"data must be {', '.join(KNOWN)}, a folder of images, or a path that ends in "
        f"{', '.join(FORMATS)}; got {name!r}{_remedy(path)}"
    )


def _remedy(path: Path) -> str:
    """What to do with a file of another kind, by its suffix."""
    suffix = path.suffix.lower()
    found = next((remedy for suffixes, remedy in REMEDIES if suffix in suffixes), "")
    return found and f"; {found.format(repr(path.name))}"


def _mapped(data: Dataset, box: Box) -> Dataset:
    """A known set, read into [0, 1], in another box."""
    if box == UNIT:
        return data
    low, high = box
    if not math.isfinite(high - low):
        raise ValueError(f"{data.name} needs a finite range, got [{low:g}, {high:g}]")
    x_train, x_test = (x.mul(high - low).add_(low) for x in (data.x_train, data.x_test))
    note = f"{data.note} Pixels were mapped to [{low:g}, {high:g}].".strip()
    return data._replace(x_train=x_train, x_test=x_test, note=note, low=low, high=high)
