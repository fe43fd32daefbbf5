"""Conditions per row: what a conditional VAE takes beside x or z, [B, ...] or a dict of such."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from vaefast import checks

__all__ = ["Context", "as_keyword", "call", "check", "repeated", "require_taker", "rows"]

Context = Tensor | dict[str, Tensor] | None

BY_KEYWORD = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
BY_PLACE = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
FREE = (inspect.Parameter.empty, None)  # defaults of a second argument that a context may fill


def check(context: Context, B: int, x: Tensor | None = None) -> Context:
    """``context``, if it is None, a tensor [B, ...] or a dict of such tensors.

    Raises:
        TypeError: it is anything else.
        ValueError: a tensor has another number of rows, or is on another device than x.
    """
    if context is None:
        return None
    named = context if isinstance(context, dict) else {"": context}
    for key, value in named.items():
        name = f"context[{key!r}]" if key else "context"
        if not isinstance(value, Tensor):
            remedy = f"; pass torch.as_tensor({name})" if hasattr(value, "__len__") else ""
            raise TypeError(
                f"{name} must be a tensor [B, ...] or a dict of such, got {type(value).__name__}"
                + remedy
            )
        if value.ndim == 0 or len(value) != B:
            raise ValueError(f"{name} must be [{B}, ...], one row per input, got {_shape(value)}")
        if x is not None:
            checks.same_device(x=x, **{name: value})
    return context


def rows(context: Context, rows: slice | Tensor) -> Context:
    """The context of some rows of the batch: a slice, or their positions [n] int64."""
    return _each(context, lambda t: t[rows])


def repeated(context: Context, n: int) -> Context:
    """The context of every row n times: of n chains, restarts or samples side by side."""
    return context if n == 1 else _each(context, lambda t: t.repeat_interleave(n, dim=0))


def as_keyword(context: Context) -> dict[str, Any]:
    """The keyword argument ``context``, where there is one."""
    return {} if context is None else {"context": context}


def call(function: Callable[..., Any], value: Tensor, context: Context) -> Any:
    """``function(value)``, with the context where there is one and the function takes it.

    A parameter named ``context`` gets it whole. Otherwise a dict goes to the parameters that its
    keys name, and a tensor to the second parameter, if that has no default but None.

    Raises:
        TypeError: the function needs a context and there is none.
    """
    if context is not None:
        places, names = _arguments(function, context)
        return function(value, *places, **names)
    try:
        return function(value)
    except TypeError as error:
        parameters = _parameters(function)
        if not any(_is_required(p) for p in parameters[1:]):
            raise
        beside = f"{_name(function)} takes conditions beside {parameters[0].name}"
        raise TypeError(f"{beside}; pass context=") from error


def require_taker(functions: Iterable[Callable[..., Any]], context: Context) -> None:
    """Refuse a context, or an entry of one, that none of the functions takes.

    Raises:
        TypeError: with the signature that would take it.
    """
    if context is None:
        return
    taken: set[str] = set()
    for function in functions:
        places, names = _arguments(function, context)
        if places or "context" in names:
            return
        taken |= set(names)
    unused = [] if not isinstance(context, dict) else sorted(set(context) - taken)
    if unused or not isinstance(context, dict):
        what = f"context entries {', '.join(map(repr, unused))} are" if unused else "context is"
        raise TypeError(
            f"{what} taken by neither encode, decode nor the prior; "
            "define encode(x, context) or decode(z, context), or name the entry in them"
        )


def _each(context: Context, function: Callable[[Tensor], Tensor]) -> Context:
    if isinstance(context, dict):
        return {key: function(value) for key, value in context.items()}
    return None if context is None else function(context)


def _arguments(
    function: Callable[..., Any], context: Tensor | dict[str, Tensor]
) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    """How the function takes the context beside its first argument."""
    parameters = _parameters(function)
    named = {p.name for p in parameters[1:] if p.kind in BY_KEYWORD}
    if "context" in named:
        return (), {"context": context}
    if isinstance(context, dict):
        if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
            return (), dict(context)
        return (), {key: value for key, value in context.items() if key in named}
    second = parameters[1] if len(parameters) > 1 else None
    if second is not None and second.kind in BY_PLACE and second.default in FREE:
        return (context,), {}
    return (), {}


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    if isinstance(function, nn.Module) and not isinstance(function, torch.jit.ScriptModule):
        function = function.forward
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # a function without a Python signature
        return []


def _is_required(parameter: inspect.Parameter) -> bool:
    by_name = parameter.kind in (*BY_PLACE, *BY_KEYWORD)
    return by_name and parameter.default is inspect.Parameter.empty


def _name(function: Callable[..., Any]) -> str:
    """``Model.encode``, the name of a module's class, or that of a function."""
    if isinstance(function, nn.Module):
        return type(function).__name__
    name = getattr(function, "__name__", type(function).__name__)
    owner = getattr(function, "__self__", None)
    return name if owner is None else f"{type(owner).__name__}.{name}"


def _shape(t: Tensor) -> list[int]:
    return list(t.shape)
