"""The ATen operations that a network can express: what each does to the values of a trace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vaefast.models import rules_activations, rules_affine, rules_layers  # noqa: F401 - they fill in the rules
from vaefast.models.folding import ready
from vaefast.models.plans import CannotLower, Constant, Step, Values
from vaefast.models.rules import RULES, rule
from vaefast.models.values import Logarithm, Value

__all__ = ["FACTORIES", "MOVES", "RULES", "converted", "logarithm", "moved"]

# they move elements and compute nothing: run on the index tensor, they say where each came from
_MOVES = (
    "view _unsafe_view reshape _reshape_alias t transpose permute movedim squeeze unsqueeze expand "
    "repeat select slice narrow split split_with_sizes unbind unfold diagonal index index_select "
    "flip roll clone contiguous alias pixel_shuffle pixel_unshuffle channel_shuffle"
)
_FACTORIES = (
    "zeros_like ones_like full_like empty_like new_zeros new_ones new_full new_empty "
    "new_empty_strided"
)
MOVES, FACTORIES = frozenset(_MOVES.split()), frozenset(_FACTORIES.split())
_RESHAPES = {"view", "_unsafe_view", "_reshape_alias"}


def moved(name: str, op: Any, value: Value, args: tuple, kwargs: dict[str, Any]) -> Any:
    """A value after an operation that only moves elements; a list where there are several."""
    if name in _RESHAPES:
        result = value.index.reshape(args[0])
    elif name == "clone" or name == "contiguous":
        result = value.index
    else:
        result = op(value.index, *[_index(arg) for arg in args], **kwargs)
    if isinstance(result, Tensor):
        return replace(value, index=result)
    return [replace(value, index=part) for part in result]


def converted(value: Any, kwargs: dict[str, Any]) -> Any:
    """A value after a conversion, which must be to a floating type."""
    dtype = kwargs.get("dtype")
    if isinstance(value, Value) and (dtype is None or dtype.is_floating_point):
        return value
    raise CannotLower("converts to a type that is not floating")


def logarithm(name: str, op: Any, args: tuple, kwargs: dict[str, Any], first: Logarithm) -> Any:
    """One after an operation that moves, converts or scales it by a number; None for others."""
    if name in ("_to_copy", "to"):
        return replace(first, value=converted(first.value, kwargs))
    if name in MOVES and args[0] is first:
        parts = moved(name, op, first.value, args[1:], kwargs)
        if isinstance(parts, Value):
            return replace(first, value=parts)
        return [replace(first, value=part) for part in parts]
    numbers = [arg for arg in args if isinstance(arg, int | float)]
    if name == "mul" and len(numbers) == 1:
        return replace(first, factor=first.factor * numbers[0])
    return None


def _index(arg: Any) -> Any:
    """Constants among the arguments are part of the structure, as they are now."""
    if isinstance(arg, Constant):
        return Values(torch.float64, torch.device("cpu")).of(arg).cpu()
    if isinstance(arg, list | tuple):
        return [_index(item) for item in arg]
    return arg


@rule("cat", "concat")
def _cat(parts: list[Any], dim: int = 0) -> Value:
    return _joined(parts, lambda indices: torch.cat(indices, dim))


@rule("stack")
def _stack(parts: list[Any], dim: int = 0) -> Value:
    return _joined(parts, lambda indices: torch.stack(indices, dim))


def _joined(parts: list[Any], join: Callable[[list[Tensor]], Tensor]) -> Value:
    first = parts[0]
    if not all(isinstance(part, Value) for part in parts):
        raise CannotLower("joins the value with a constant")
    if all(part.step is first.step and part.affine is first.affine for part in parts):
        return replace(first, index=join([part.index for part in parts]))
    steps = [ready(part) for part in parts]
    one = steps[0]
    if not all(_siblings(one, step) for step in steps):
        raise CannotLower("joins the outputs of two layers")
    return _side_by_side(steps, parts, join)


def _siblings(a: Step, b: Step) -> bool:
    alike = a.source is b.source and a.activation == b.activation and a.activation != "maxmin"
    return alike and a.linear and b.linear and a.residual is None and b.residual is None


def _side_by_side(
    steps: list[Step], parts: list[Value], join: Callable[[list[Tensor]], Tensor]
) -> Value:
    """Linear layers on one input as one layer with all their rows."""

    def parameters(values: Values) -> tuple[Tensor, Tensor | None]:
        pairs = [values.pair(step.parameters) for step in steps if step.parameters is not None]
        biases = [w.new_zeros(len(w)) if b is None else b for w, b in pairs]
        return torch.cat([weight for weight, _ in pairs]), torch.cat(biases)

    widths = [step.width for step in steps]
    total, first = sum(widths), steps[0]
    layer = first.layer._replace(out_shape=(total,))
    indices, start = [], 0
    for part, width in zip(parts, widths):
        rows = torch.arange(width, device="cpu") + start
        indices.append(torch.stack([rows, rows + total]).reshape(part.shape))
        start += width
    step = replace(first, layer=layer, parameters=parameters, before=None, variants={})
    return Value(step, join(indices))
