"""Checks of inputs: their shape, their type, and the box that their values lie in."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from vaefast import checks
from vaefast.data.dataset import Array

__all__ = [
    "UNBOUNDED",
    "UNIT",
    "Box",
    "as_tensor",
    "box_of",
    "check_inputs",
    "fit_box",
    "into_box",
]

Box = tuple[float, float]
UNIT: Box = (0.0, 1.0)
UNBOUNDED: Box = (-math.inf, math.inf)
CHANNELS = (1, 3, 4)
ROUNDING = 1e-5  # of the box's width: what arithmetic in float32 may leave outside


def box_of(low: float | None, high: float | None) -> Box | None:
    """The box that a caller names, None where neither end is given; a missing end is 0 or 1.

    Raises:
        TypeError, ValueError: an end is no number, or low is not below high.
    """
    if low is None and high is None:
        return None
    low = checks.number(UNIT[0] if low is None else low, "low")
    high = checks.number(UNIT[1] if high is None else high, "high")
    if not low < high:
        raise ValueError(f"low must be below high, got {low:g} and {high:g}")
    return low, high


def check_inputs(x: Array, label: str) -> Array:
    """``x`` as uint8 or as finite float32: [n, C, H, W] or [n, D].

    Args:
        x: [n, H, W], [n, C, H, W] or [n, D]; uint8, bool or floating.
        label: how messages name it.

    Raises:
        ValueError: another shape or type, no values, NaN or infinity.
    """
    if x.ndim not in (2, 3, 4) or x.size == 0:
        raise ValueError(
            f"{label} must be [n, H, W], [n, C, H, W] or [n, D] and not empty, got {list(x.shape)}"
        )
    if x.ndim == 4 and x.shape[3] in CHANNELS and x.shape[1] > max(CHANNELS):
        raise ValueError(
            f"{label} must be [n, C, H, W], got {list(x.shape)} with the channels last; "
            "save x.transpose(0, 3, 1, 2)"
        )
    if x.ndim == 3:
        x = x[:, None]
    if x.dtype == np.uint8:
        return x
    if x.dtype.kind not in "fb":
        raise ValueError(
            f"{label} must be uint8 from 0 to 255 or floats in [0, 1], got {x.dtype}{_levels(x)}"
        )
    with np.errstate(over="ignore"):
        return _finite(x.astype(np.float32), label)


def _levels(x: Array) -> str:
    """The range of integers, and how they become floats in [0, 1] or bytes."""
    if x.dtype.kind not in "iu":
        return "; save numbers"
    low, high = int(x.min()), int(x.max())
    if low >= 0 and high <= 1:
        remedy = "save x.astype('float32')"
    elif low >= 0 and checks.FEW_LEVELS < high <= 255:
        remedy = "save x.astype('uint8')"
    else:
        remedy = checks.into_unit_interval("save", "x", low, high)
    return f" from {low} to {high}; {remedy}"


def _finite(x: Array, label: str) -> Array:
    finite = np.isfinite(x)
    if not finite.all():
        rows = np.flatnonzero(~finite.reshape(len(x), -1).all(axis=1))
        raise ValueError(
            f"{label} must be finite, got NaN or infinity in {len(rows)} of {len(x)} rows, the "
            f"first row {rows[0]}; save x[np.isfinite(x.reshape(len(x), -1)).all(1)], and y alike"
        )
    return x


def fit_box(x: Array, label: str, given: Box | None) -> tuple[Array, Box, str]:
    """Checked inputs in their box, the box, and what a report must say about it.

    Without ``given`` it is [0, 1], which images must lie in; a table [n, D] that does not has no
    box.
    """
    if x.dtype == np.uint8:
        low, high = given or UNIT
        if not math.isfinite(high - low):
            raise ValueError(f"{label} is uint8 and needs a finite range, got [{low:g}, {high:g}]")
        to = "divided by 255" if (low, high) == UNIT else f"mapped to [{low:g}, {high:g}]"
        return x, (low, high), f"uint8 values from 0 to 255 were {to}."
    if given is None and x.ndim == 2 and _furthest(x, UNIT) > ROUNDING:
        return (
            x,
            UNBOUNDED,
            f"The values run from {x.min():.4g} to {x.max():.4g}, so the inputs have no box: an "
            "attack may set any value. --range names one.",
        )
    x, note = into_box(x, label, given)
    return x, given or UNIT, note


def into_box(x: Array, label: str, given: Box | None) -> tuple[Array, str]:
    """Values in ``given``, by default in [0, 1], and a word on those that rounding put outside.

    Raises:
        ValueError: values lie further outside; with the count, the extremes and the likely remedy.
    """
    box = given or UNIT
    furthest = 0.0 if x.dtype == np.uint8 else _furthest(x, box)
    if not furthest:
        return x, ""
    outside = int(np.count_nonzero((x < box[0]) | (x > box[1])))
    ends = f"[{box[0]:g}, {box[1]:g}]"
    if furthest > ROUNDING * (box[1] - box[0]):
        raise ValueError(
            f"{label} must be in {ends}, got {outside} of {x.size} values outside, from "
            f"{x.min():.7g} to {x.max():.7g}; {_remedy(x, given)}"
        )
    note = (
        f"{outside} of {x.size} values lay outside {ends} by rounding, at most by {furthest:.1g}, "
        "and were put on its ends."
    )
    return np.clip(x, *box), note


def _furthest(x: Array, box: Box) -> float:
    """How far outside of the box a value lies at most, 0 for none."""
    return max(0.0, box[0] - float(x.min()), float(x.max()) - box[1])


def _remedy(x: Array, given: Box | None) -> str:
    low, high = float(x.min()), float(x.max())
    if given is not None:
        return "rescale x, or name its own range"
    remedy = checks.into_unit_interval("save", "x", low, high)
    if remedy.endswith("(0, 1)"):
        return f"{remedy} if only a resize left them there"
    ends = "-1,1" if "+ 1" in remedy else f"{low:.4g},{high:.4g}"
    return f"{remedy}, or pass --range {ends} (low=, high=)"


def as_tensor(x: Array, box: Box = UNIT) -> Tensor:
    """Checked inputs as float32; uint8 is mapped from 0 to 255 to the box."""
    tensor = torch.from_numpy(x.astype(np.float32))
    if x.dtype != np.uint8:
        return tensor
    low, high = box
    return tensor.div_(255.0).mul_(high - low).add_(low)
