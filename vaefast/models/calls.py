"""Calling the modules of a VAE: what they are given, and what they must return."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from vaefast import checks
from vaefast.models.context import Context, repeated
from vaefast.models.finite_model import NO_VALUES
from vaefast.models.results import described

__all__ = [
    "HALF",
    "as_event",
    "check_event_shape",
    "check_moments",
    "check_sizes",
    "images",
    "listed",
    "lone_rows",
    "to_model",
]

HALF = (torch.float16, torch.bfloat16)
BYTES = (torch.uint8, torch.uint16)  # of images in files

Tensors = TypeVar("Tensors", bound=tuple[Tensor | None, ...])


def to_model(value: Tensor, name: str, module: nn.Module) -> Tensor:
    """``value`` rounded to a half-precision module's dtype; any other mismatch is an error.

    Raises:
        TypeError: a dtype that is not the module's.
        ValueError: a device that is not the module's.
    """
    state = chain(module.parameters(), module.buffers())
    like = next((t for t in state if t.is_floating_point()), None)
    if like is None:
        _refuse_complex(module)
        return value
    if like.is_meta and not value.is_meta:
        raise ValueError(NO_VALUES)
    checks.same_device(model=like, **{name: value})
    if like.dtype in HALF:
        return value.to(like.dtype)
    if value.dtype != like.dtype:
        dtype = checks.short(like.dtype)
        raise TypeError(
            f"{name} must be {dtype} like the model, got {checks.short(value.dtype)}; "
            f"pass {name}.to(torch.{dtype})"
            + (", or give encoder and decoder one dtype" if name == "z" else "")
        )
    return value


def _refuse_complex(module: nn.Module) -> None:
    for name, parameter in module.named_parameters():
        if parameter.is_complex():
            dtype = checks.short(parameter.dtype)
            raise TypeError(f"the model's weights must be floating, got {dtype} in {name!r}")


def images(x: Tensor, name: str = "x") -> Tensor:
    """x, if it is floating; the error for bytes names the range that images are wanted in."""
    if isinstance(x, Tensor) and x.dtype in BYTES:
        dtype, largest = checks.short(x.dtype), torch.iinfo(x.dtype).max
        raise TypeError(f"{name} must be floating, got {dtype}; pass {name}.float() / {largest}")
    return checks.batch(x, name)


def lone_rows(
    function: Callable[[Tensor, Context], Tensors], rows: Tensor, context: Context
) -> Tensors:
    """``function(rows, context)``, a lone row as two of it where the module cannot take one.

    An encoder that ends in ``.squeeze()`` loses the batch of a lone row.
    """
    if len(rows) != 1:
        return function(rows, context)
    try:
        return function(rows, context)
    except (IndexError, RuntimeError, ValueError) as error:
        try:
            both = function(rows.repeat_interleave(2, dim=0), repeated(context, 2))
        except Exception:
            raise error from None
        return tuple(None if t is None else t[:1] for t in both)  # type: ignore[return-value]


def check_moments(result: Any, rows: int) -> tuple[Tensor, Tensor]:
    """Mean and log-variance as an encoder returned them: two tensors [B, *latent_shape].

    Raises:
        TypeError: not two tensors.
        ValueError: not of one shape with B rows.
    """
    two = isinstance(result, tuple | list) and len(result) == 2
    if not (two and all(isinstance(part, Tensor) for part in result)):
        raise TypeError(
            f"encode(x) must return (mean, logvar), two tensors [B, d], got {described(result)}"
        )
    mean, logvar = result
    if mean.ndim < 2 or len(mean) != rows:
        raise ValueError(f"the encoder's mean must be [{rows}, d], got {list(mean.shape)}")
    checks.shape(logvar, "the encoder's logvar", mean.shape, "its mean")
    return mean, logvar


def as_event(out: Any, rows: int, event: tuple[int, ...] | None) -> Tensor:
    """A decoder's output [n, *event]; a flat one is reshaped where the event shape is known.

    Raises:
        TypeError: no tensor.
        ValueError: a shape that does not fit.
    """
    if not isinstance(out, Tensor):
        raise TypeError(f"decode(z) must return a tensor [n, *event], got {described(out)}")
    if out.ndim > 1 and len(out) == rows:
        shape = tuple(out.shape[1:])
        if event is None or shape == event:
            return out
        if math.prod(shape) == math.prod(event) and _is_same_order(shape, event):
            return out.reshape(rows, *event)
    raise ValueError(f"decode(z) must return [{rows}, {listed(event)}], got {list(out.shape)}")


def check_sizes(sizes: Sequence[int], name: str) -> tuple[int, ...]:
    """A sequence of whole numbers, each at least 1."""
    if not isinstance(sizes, Sequence) or isinstance(sizes, str):
        raise TypeError(f"{name} must be a sequence such as (512, 512), got {sizes!r}")
    return tuple(checks.count(size, name) for size in sizes)


def check_event_shape(event_shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of one input: at least one dimension, each size at least 1."""
    event = check_sizes(event_shape, "event_shape")
    if not event:
        raise ValueError("event_shape must have at least one dimension, got ()")
    return event


def listed(shape: tuple[int, ...] | None) -> str:
    return "*event" if shape is None else ", ".join(map(str, shape))


def _is_same_order(shape: tuple[int, ...], event: tuple[int, ...]) -> bool:
    """Whether a reshape keeps the meaning: one shape is flat, or they differ by ones."""
    flat = len(shape) == 1 or len(event) == 1
    return flat or [n for n in shape if n != 1] == [n for n in event if n != 1]
