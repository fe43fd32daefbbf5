"""Folders of images: PNG and JPEG files, read through Pillow."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vaefast.data.dataset import Array, Arrays, reading

__all__ = ["IMAGES", "read_folder", "read_image"]

IMAGES = (".png", ".jpg", ".jpeg")
GREY = ("1", "L", "LA", "La")
DEEP = ("I", "F")  # and "I;16": modes of more than 8 bits per channel
SPLITS = ("train", "test")


def read_folder(folder: Path) -> Arrays:
    """The images of a folder, uint8 [n, C, H, W], in the order of their sorted paths.

    Images right in the folder have no labels; where there are only sub-folders, the label is the
    sub-folder's name. A ``train`` and a ``test`` folder are the two splits. All images are grey
    (C = 1) where every file is grey, else RGB (C = 3); transparency is dropped.

    Raises:
        ValueError: no images, images of different sizes (the first two are named), or an
            unreadable file.
    """
    if all((folder / split).is_dir() for split in SPLITS):
        (train, y), (test, y_test) = (_files(folder / split) for split in SPLITS)
        x = _images([*train, *test])
        return Arrays(x[: len(train)], y, x[len(train) :], y_test)
    files, y = _files(folder)
    return Arrays(_images(files), y)


def _files(folder: Path) -> tuple[list[Path], Array | None]:
    """Image files and, from sub-folders, their labels."""
    here = _list(folder)
    children = [path for path in sorted(folder.iterdir()) if path.is_dir()]
    below = {child.name: found for child in children if (found := _list(child))}
    if here and below:
        raise ValueError(
            f"{folder} holds images and sub-folders with images ({next(iter(below))}); move one of "
            "the two elsewhere"
        )
    if not here and not below:
        raise ValueError(f"{folder} holds no images; they end in {', '.join(IMAGES)}")
    if here:
        return here, None
    names = np.array([name for name, files in below.items() for _ in files])
    return [path for files in below.values() for path in files], names


def _list(folder: Path) -> list[Path]:
    return [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in IMAGES and path.is_file() and not path.name.startswith(".")
    ]


def _images(files: list[Path]) -> Array:
    """uint8 [n, C, H, W]: sizes and colours are compared before any pixel is read."""
    heads = [_head(path) for path in files]
    size = heads[0][0]
    for path, (other, _) in zip(files, heads, strict=True):
        if other != size:
            raise ValueError(
                f"images must have one size: {files[0]} is {size[0]}x{size[1]} pixels (width x "
                f"height), {path} is {other[0]}x{other[1]}; resize or crop them"
            )
    mode = "L" if all(mode in GREY for _, mode in heads) else "RGB"
    return np.stack([read_image(path, mode) for path in files])


def _head(path: Path) -> tuple[tuple[int, int], str]:
    from PIL import Image

    with reading(path, "image"), Image.open(path) as image:
        if image.mode.partition(";")[0] in DEEP:
            raise ValueError(
                f"it has more than 8 bits per channel (mode {image.mode}); save it with 8, or save "
                "an .npy of floats"
            )
        return image.size, image.mode


def read_image(path: Path, mode: str | None = None) -> Array:
    """One file as uint8 [C, H, W]; ``mode`` "L" or "RGB", by default as the file is."""
    from PIL import Image

    mode = mode or ("L" if _head(path)[1] in GREY else "RGB")
    with reading(path, "image"), Image.open(path) as image:
        pixels = np.asarray(image.convert(mode))
    return pixels[None] if mode == "L" else pixels.transpose(2, 0, 1)
