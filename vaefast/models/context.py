"""Per-row conditions of a model: one tensor [B, ...], or several by name; None stays None."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

__all__ = ["Context", "repeated", "rows"]

Context = Tensor | dict[str, Tensor] | None


def rows(context: Context, rows: slice | Tensor) -> Context:
    """The conditions of some rows."""
    return _each(context, lambda t: t[rows])


def repeated(context: Context, n: int) -> Context:
    """Each row's conditions n times, side by side."""
    return context if n == 1 else _each(context, lambda t: t.repeat_interleave(n, 0))


def _each(context: Context, change: Callable[[Tensor], Tensor]) -> Context:
    if isinstance(context, dict):
        return {name: change(t) for name, t in context.items()}
    return None if context is None else change(context)
