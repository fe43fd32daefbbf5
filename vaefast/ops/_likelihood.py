"""The check of a likelihood and its parameters, which the ops share that take one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from vaefast import checks
from vaefast.functional.likelihoods import PIXEL_LIKELIHOODS
from vaefast.ops._inputs import check_kind
from vaefast.types import LIKELIHOODS

__all__ = ["check_likelihood"]


def check_likelihood(
    likelihood: str, parameters: Sequence[float | Tensor], x: Tensor
) -> list[Tensor]:
    """The likelihood's parameters in x's dtype and on its device; 1 where none are given.

    Numbers must be positive and finite; values in tensors are not looked at.
    """
    if likelihood not in PIXEL_LIKELIHOODS:
        checks.option(likelihood, "likelihood", LIKELIHOODS)
    names = PIXEL_LIKELIHOODS[likelihood].parameters
    if not names and not parameters:
        return []
    if not isinstance(parameters, Sequence):
        raise TypeError(
            f"likelihood_params must be a sequence, got {type(parameters).__name__}; "
            "pass [std] for a Gaussian"
        )
    if len(parameters) > len(names):
        takes = ", ".join(names) or "no parameters"
        raise ValueError(f"likelihood {likelihood!r} takes {takes}, got {len(parameters)}")
    given = *parameters, *(1.0 for _ in names[len(parameters) :])
    return [_parameter(value, name, x) for name, value in zip(names, given)]


def _parameter(value: float | Tensor, name: str, x: Tensor) -> Tensor:
    """A scalar, [D] or [B, D] beside x [B, D]."""
    if not isinstance(value, Tensor):
        if not 0.0 < checks.number(value, name) < math.inf:
            raise ValueError(f"{name} must be positive and finite, got {value}")
        return torch.full((), value, dtype=x.dtype, device=x.device)
    if value.ndim and list(value.shape) not in ([x.shape[1]], list(x.shape)):
        raise ValueError(
            f"{name} must be a scalar, [D] or [B, D] like x {list(x.shape)}, "
            f"got {list(value.shape)}"
        )
    check_kind(value, name, x, "x")
    return value
