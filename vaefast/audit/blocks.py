"""Work through the inputs in blocks of rows, so that a progress bar moves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

__all__ = ["blocks", "by_blocks"]

BLOCK = 64  # rows between two moves of a progress bar

R = TypeVar("R")


def blocks(x: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Consecutive row slices of ``x`` with the global numbers of their rows."""
    for start in range(0, len(x), BLOCK):
        stop = min(start + BLOCK, len(x))
        yield slice(start, stop), torch.arange(start, stop, device=x.device)


def by_blocks(
    run: Callable[[slice, Tensor], R],
    x: Tensor,
    advance: Callable[[int], None] | None = None,
    row_dim: Mapping[str, int] | None = None,
) -> R:
    """``run(rows, index)`` on every block, its results joined over the rows.

    Args:
        run: gives a tensor, or a dict or dataclass of tensors and of tuples, one entry a row.
        x: whose rows are cut into blocks.
        advance: told how many rows each block had.
        row_dim: for fields of a dataclass whose rows are not dimension 0, which one they are.
    """
    parts = []
    for rows, index in blocks(x):
        parts.append(run(rows, index))
        if advance is not None:
            advance(len(index))
    return _join(parts, row_dim or {})


def _join(parts: list[Any], row_dim: Mapping[str, int]) -> Any:
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat(parts)
    if isinstance(first, dict):
        return {name: torch.cat([part[name] for part in parts]) for name in first}
    joined: dict[str, Any] = {}
    for field in fields(first):
        values = [getattr(part, field.name) for part in parts]
        if isinstance(values[0], Tensor):
            joined[field.name] = torch.cat(values, dim=row_dim.get(field.name, 0))
        elif isinstance(values[0], tuple):
            joined[field.name] = sum(values, ())
    return replace(first, **joined)
