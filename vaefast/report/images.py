"""Images as PNG data URIs, in strips of the first few inputs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

__all__ = ["SHOWN", "Picture", "Strip", "data_uri", "direction_strip", "strip"]

SHOWN = 8  # inputs in a strip: the first ones, not picked


class Picture(NamedTuple):
    uri: str
    alt: str
    predicted: str = ""  # class, where there is one
    changed: bool = False  # it differs from the class predicted for the original


class Strip(NamedTuple):
    title: str
    pictures: list[Picture]


def strip(
    title: str,
    images: Tensor,
    classes: np.ndarray | None = None,
    reference: np.ndarray | None = None,
    names: Sequence[str] = (),
) -> Strip:
    """The first images [B, C, H, W], with predicted classes [B] where they are given.

    Args:
        title: of the strip.
        images: in [0, 1].
        classes: predicted for these images, -1 where there is none.
        reference: predicted for the originals.
        names: of the classes; numbers without them.
    """
    pictures = []
    for row, image in enumerate(images[:SHOWN]):
        predicted, changed, alt = "", False, f"{title}, input {row}"
        if classes is not None and reference is not None:
            predicted = _class_name(int(classes[row]), names)
            changed = bool(classes[row] != reference[row])
            alt += f", predicted {predicted}" + (", not the original's class" if changed else "")
        pictures.append(Picture(data_uri(image), alt, predicted, changed))
    return Strip(title, pictures)


def _class_name(label: int, names: Sequence[str]) -> str:
    if label < 0:
        return "–"
    return names[label] if names else str(label)


def direction_strip(title: str, directions: Tensor) -> Strip:
    """Signed images, each scaled by its own largest entry: grey is 0, white and black are ±1."""
    shown = directions[:SHOWN]
    largest = shown.abs().flatten(1).amax(1).clamp_min(1e-12)
    return strip(title, 0.5 + 0.5 * shown / largest.view(-1, *[1] * (shown.ndim - 1)))


def data_uri(image: Tensor) -> str:
    """A [C, H, W] image in pixel scale as a PNG in a data URI; values are clipped to [0, 1].

    One channel is grey, three are colours; of any other number the mean is shown. NaN is black.
    """
    pixels = image.detach().cpu().double().nan_to_num(0.0).clamp(0, 1)
    pixels = pixels.permute(1, 2, 0) if len(pixels) == 3 else pixels.mean(0)
    buffer = io.BytesIO()
    array = np.round(255 * pixels.numpy()).astype(np.uint8)
    Image.fromarray(array).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
