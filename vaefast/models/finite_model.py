"""Weights that are NaN or infinite: named, rather than passed on as the failure of every row."""

from __future__ import annotations

import math
import re

import torch
from torch import Tensor, nn

__all__ = ["NO_VALUES", "WRAPPER", "check_outputs", "check_weights"]

WRAPPER = re.compile(r"^(encoder|decoder)\.module\.")  # before the caller's own names


NO_VALUES = (
    "the model is on meta, where weights have no values; make it on a real device, or "
    'model.to_empty(device="cpu") and load its weights'
)


def check_outputs(model: nn.Module, *outputs: Tensor, prefix: str = "") -> None:
    """Refuse a model whose weights are to blame for outputs on finite rows that are not finite.

    A sum of finite outputs costs next to nothing; the weights are looked at only where it is not
    finite. Where all weights are finite nothing is raised: the rows fail, each for itself.

    Args:
        model: whose parameters and buffers are named.
        outputs: what it made of one or two finite rows.
        prefix: before the names, where the model is part of another.

    Raises:
        ValueError: a weight is NaN or infinite, or has no value.
    """
    for out in outputs:
        if out.is_meta:
            raise ValueError(NO_VALUES)
        if not math.isfinite(out.sum().item()):
            return check_weights(model, prefix)
    return None


def check_weights(model: nn.Module, prefix: str = "") -> None:
    """Every parameter is finite and no buffer holds NaN; a mask of -inf is a legal buffer.

    Raises:
        ValueError: with the name of the first that is not.
    """
    for name, parameter in model.named_parameters(prefix):
        if parameter.is_floating_point():
            _refuse("parameter", name, parameter, ~torch.isfinite(parameter))
    for name, buffer in model.named_buffers(prefix):
        if buffer.is_floating_point():
            _refuse("buffer", name, buffer, torch.isnan(buffer))


def _refuse(kind: str, name: str, values: Tensor, bad: Tensor) -> None:
    if not bool(bad.any()):
        return
    what = "NaN" if bool(torch.isnan(values).any()) else "infinity"
    raise ValueError(
        f"the model's {kind} {WRAPPER.sub('', name)!r} must be finite, got {what} in "
        f"{int(bad.sum())} of {values.numel()} entries; load or train the weights again"
    )
