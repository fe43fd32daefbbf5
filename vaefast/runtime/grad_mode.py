"""The modes that the public functions run in: no gradients, no inference mode, no autocast."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar

import torch

from vaefast.runtime import openmp, threads

__all__ = ["own_modes", "without_autocast", "without_grad"]

F = TypeVar("F", bound=Callable[..., Any])

AUTOCAST = ("cpu", "cuda", "xpu", "mps")  # the device types that a caller may have it on for


def without_grad(function: F) -> F:
    """No gradients but where the function asks for them, no inference mode, no autocast.

    Nor more threads than processors, in what PyTorch does of the work.

    Equivalent to, but cheaper where the modes are right already::

        torch.inference_mode(False)(torch.no_grad()(without_autocast(function)))
    """

    @wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        if threads.count() < torch.get_num_threads():
            with openmp.at_most(threads.count()):
                return call(*arguments, **options)
        if torch.is_inference_mode_enabled() or _autocast():
            with own_modes():
                return function(*arguments, **options)
        if not torch.is_grad_enabled():
            return function(*arguments, **options)
        with torch.no_grad():
            return function(*arguments, **options)

    return call  # type: ignore[return-value]


def without_autocast(function: F) -> F:
    """Products at the precision that the function asks for, also under ``torch.autocast``.

    A bound is one in the dtype of its inputs; autocast would round the products inside.
    """

    @wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        if not _autocast():
            return function(*arguments, **options)
        with _plain():
            return function(*arguments, **options)

    return call  # type: ignore[return-value]


@contextmanager
def own_modes() -> Iterator[None]:
    """The modes of :func:`without_grad` as a context."""
    few = openmp.at_most(threads.count())
    if not (torch.is_inference_mode_enabled() or _autocast()):
        with few, torch.no_grad():
            yield
        return
    with few, torch.inference_mode(False), torch.no_grad(), _plain():
        yield


def _autocast() -> bool:
    """Whether the caller has autocast on."""
    return True in [torch.is_autocast_enabled(device) for device in AUTOCAST]


@contextmanager
def _plain() -> Iterator[None]:
    """Autocast off inside; its dtypes and its cache of weights stay the caller's."""
    on = [device for device in AUTOCAST if torch.is_autocast_enabled(device)]
    try:
        for device in on:
            torch.set_autocast_enabled(device, False)
        yield
    finally:
        for device in on:
            torch.set_autocast_enabled(device, True)
