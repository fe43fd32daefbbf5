"""Sampling in float64 what was given in less: copies of the model, the inputs and conditions."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor

from vaefast import checks
from vaefast.models.context import Context
from vaefast.models.vae import VAE

__all__ = ["promoted"]

Model = TypeVar("Model")


def promoted(vae: VAE, x: Tensor, context: Context, precision: str) -> tuple[VAE, Tensor, Context]:
    """The arguments as they are, or in float64 where that is the ``precision``.

    Raises:
        RuntimeError: the model cannot be copied.
    """
    if precision != "float64":
        return vae, x, context
    if isinstance(context, dict):
        context = {name: _double(t) for name, t in context.items()}
    return _doubled(vae), _double(x), _double(context)


def _double(value: Model) -> Model:
    """A floating tensor in float64; anything else as it is."""
    floating = isinstance(value, Tensor) and value.is_floating_point()
    return value.double() if floating else value  # type: ignore[attr-defined]


def _doubled(vae: VAE) -> VAE:
    """``vae`` in float64, a copy unless it is."""
    if not isinstance(vae, VAE):
        return vae  # refused like any other
    state = [t for t in checks.parameters(vae) if t.is_floating_point()]
    if all(t.dtype == torch.float64 for t in state):
        return vae
    try:
        return copy.deepcopy(vae).double()
    except Exception as error:
        raise RuntimeError(
            f'precision="float64" needs a copy of the model, which cannot be copied ({error}); '
            "pass vae.double() and x.double() instead"
        ) from error
