"""The grad mode of the public functions."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import torch

__all__ = ["without_grad"]

F = TypeVar("F", bound=Callable[..., Any])


def without_grad(function: F) -> F:
    """No gradients but where the function asks for them, also under ``torch.inference_mode()``.

    Equivalent to, but cheaper where the mode is right already::

        torch.inference_mode(False)(torch.no_grad()(function))
    """

    @wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        if torch.is_inference_mode_enabled():
            with torch.inference_mode(False), torch.no_grad():
                return function(*arguments, **options)
        if not torch.is_grad_enabled():
            return function(*arguments, **options)
        with torch.no_grad():
            return function(*arguments, **options)

    return call  # type: ignore[return-value]
