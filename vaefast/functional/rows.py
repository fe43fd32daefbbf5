"""Rows: chunks within the memory budget, bad rows, and the chains of an input."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vaefast.runtime import memory

__all__ = [
    "chains",
    "chunked",
    "finite",
    "has_plain_rows",
    "nan_where_bad",
    "of_chains",
    "part",
    "repeated",
    "rows_of",
]


def chains(z: Tensor, x: Tensor) -> int:
    """C, the chains per input: z has N = B·C rows, x has B."""
    return len(z) // max(len(x), 1)


def of_chains(rows: slice, chains: int) -> slice:
    """The rows n of B·C that belong to the inputs in ``rows``."""
    return slice(rows.start * chains, rows.stop * chains)


def repeated(t: Tensor, times: int) -> Tensor:
    """Every row ``times`` times, side by side; the tensor itself for once."""
    return t if times == 1 else t.repeat_interleave(times, dim=0)


def part(tensor: Tensor | None, rows: slice) -> Tensor | None:
    return None if tensor is None else tensor[rows]


def chunked(
    function: Callable[[slice], tuple[Tensor, ...]], rows: int, bytes_per_row: int
) -> tuple[Tensor, ...]:
    """``function`` over consecutive slices of the rows, its results put together.

    A result may have several rows for each of ``rows`` (the chains of an input).
    """
    slices = list(memory.row_chunks(rows, bytes_per_row))
    if len(slices) <= 1:
        return function(slice(0, rows))
    first = function(slices[0])
    size = slices[0].stop
    results = tuple(r.new_empty((rows * len(r) // size, *r.shape[1:])) for r in first)
    _fill(results, slices[0], first, rows)
    for chunk in slices[1:]:
        _fill(results, chunk, function(chunk), rows)
    return results


def _fill(results: tuple[Tensor, ...], chunk: slice, pieces: tuple[Tensor, ...], rows: int) -> None:
    for result, piece in zip(results, pieces):
        result[of_chains(chunk, len(result) // rows)] = piece


def finite(*tensors: Tensor | None) -> Tensor:
    """[n] bool: every entry of row i is finite, in all of the tensors [n, ...] that are given."""
    first, *others = (_finite(t) for t in tensors if t is not None)
    for flags in others:
        first = first & flags
    return first


def _finite(tensor: Tensor) -> Tensor:
    zeros = tensor - tensor  # NaN where an entry is not finite, in a quarter of isfinite's time
    return (zeros if tensor.ndim == 1 else zeros.flatten(1).sum(1)) == 0


def nan_where_bad(good: Tensor, *results: Tensor) -> tuple[Tensor, ...]:
    """The results, contiguous, with NaN in the rows that are not ``good`` [n]."""
    return tuple(_nan_where_bad(good, result).contiguous() for result in results)


def _nan_where_bad(good: Tensor, result: Tensor) -> Tensor:
    return result.masked_fill(~good.reshape(-1, *[1] * (result.ndim - 1)), torch.nan)


def rows_of(x: Tensor) -> Tensor:
    """[B, D] with contiguous rows (any row stride), copied only where it must be."""
    return x if x.shape[1] <= 1 or x.stride(1) == 1 else x.contiguous()


def has_plain_rows(t: Tensor) -> bool:
    """[B, D] with contiguous rows that lie one behind the other."""
    return t.is_contiguous() or (t.stride(1) == 1 and t.stride(0) >= t.shape[1])
