"""What to do about inputs of another shape than a model takes, in the caller's terms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from vaefast import checks
from vaefast.models.calls import listed

__all__ = ["require_event", "require_latents", "with_hint"]

RESHAPED: dict[str, Callable[[Tensor], Tensor]] = {
    "flatten(1)": lambda x: x.flatten(1),
    "unsqueeze(1)": lambda x: x.unsqueeze(1),
    "squeeze(1)": lambda x: x.squeeze(1),
    "movedim(-1, 1)": lambda x: x.movedim(-1, 1),
}

Result = TypeVar("Result")


def require_event(x: Tensor, event: tuple[int, ...] | None) -> None:
    """Refuse x [B, ...] whose rows are not of the event shape, where there is a known one.

    Raises:
        ValueError: with the reshape that x needs where its entries are those of such events.
    """
    shape = tuple(x.shape)
    if event is not None and shape[1:] != event:
        wanted = ", ".join(map(str, event))
        raise ValueError(
            f"x must be [B, {wanted}] for this model, got {list(shape)}{_hint(shape, event)}"
        )


def with_hint(encode: Callable[[Tensor], Result], x: Tensor) -> Result:
    """``encode(x)`` for x [B, *event]; its error names the reshape with which it runs.

    Raises:
        ValueError: the encoder takes these rows in another shape.
    """
    try:
        return encode(x)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError) as error:
        way = next((way for way, reshaped in RESHAPED.items() if _runs(encode, reshaped, x)), None)
        if way is None:
            raise
        own, reason = ", ".join(map(str, x.shape[1:])), (str(error).splitlines() or [""])[0]
        raise ValueError(
            f"the encoder does not take x [B, {own}] ({reason}); pass x.{way}"
        ) from error


def _hint(shape: tuple[int, ...], event: tuple[int, ...]) -> str:
    """What makes [B, *event] of x of that shape, or nothing."""
    own = shape[1:]
    ways = {
        "[None]": shape == event,
        "[None, None]": (1, *shape) == event,
        ".unsqueeze(1)": (1, *own) == event,
        ".squeeze(1)": own == (1, *event),
        ".movedim(-1, 1)": len(own) > 1 and (own[-1], *own[:-1]) == event,
        ".flatten(1)": (math.prod(own),) == event,
        f".unflatten(1, {event})": own == (math.prod(event),),
    }
    return next((f"; pass x{way}" for way, fits in ways.items() if fits), "")


def _runs(encode: Callable[[Tensor], object], reshaped: Callable, x: Tensor) -> bool:
    """Whether the rows of x can be encoded in another shape."""
    try:
        other = reshaped(x)
        if other.shape == x.shape or other.ndim < 2:
            return False
        with torch.no_grad():
            encode(other)
    except Exception:
        return False
    return True


def require_latents(z: Tensor, shape: tuple[int, ...] | None, count: int | None) -> None:
    """z [n, d] or [n, *latent_shape], as far as the model's own are known.

    Raises:
        TypeError: z is not floating.
        ValueError: z is neither shape.
    """
    checks.batch(z, "z")
    fits = shape is None or tuple(z.shape[1:]) in ((count,), shape)
    if not fits or (shape is None and count not in (None, *z.shape[1:2])):
        own = f" or [n, {listed(shape)}]" if shape is not None and len(shape) > 1 else ""
        raise ValueError(f"z must be [n, {count}]{own}, got {list(z.shape)}")
