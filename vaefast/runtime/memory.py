"""The working-memory budget that every public function keeps to (beyond its inputs and results)."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

__all__ = ["budget", "cached", "require_fits", "row_chunks", "rows_within", "set_memory"]

CACHED = 512  # rows of a module's values at once: with more, layers wait for the memory

_budget = 1 << 30


def set_memory(budget: int) -> None:
    """Set the working-memory budget of vaefast's functions, in bytes (default 1 GiB).

    A call that needs more works through its rows in chunks. The results do not depend on it, those
    of a model that does not lower to the fused ops but to round-off.

    Raises:
        ValueError: ``budget`` is not a positive whole number.
    """
    global _budget
    if isinstance(budget, bool) or not isinstance(budget, int) or budget < 1:
        raise ValueError(f"budget must be a positive number of bytes, got {budget!r}")
    _budget = budget


def budget() -> int:
    """The budget, in bytes."""
    return _budget


def rows_within(bytes_per_row: int) -> int:
    """How many rows the budget holds, at least one."""
    return max(1, _budget // max(1, bytes_per_row))


def row_chunks(rows: int, bytes_per_row: int, most: int | None = None) -> Iterator[slice]:
    """Consecutive slices of ``range(rows)``, each within the budget and of at least one row.

    Args:
        most: rows in a slice, where fewer than fit are faster.
    """
    size = rows_within(bytes_per_row)
    size = size if most is None else max(1, min(size, most))
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def cached(width: int, like: Tensor, rows: int = CACHED) -> int | None:
    """How many of something that is ``width`` rows a module takes at once; None on a GPU."""
    return None if like.is_cuda else max(1, rows // max(width, 1))


def require_fits(bytes_needed: int, what: str, hint: str) -> None:
    """Refuse a result that cannot fit, before anything is computed.

    Raises:
        MemoryError: ``what`` needs more than the budget; the message ends with ``hint``.
    """
    if bytes_needed > _budget:
        raise MemoryError(
            f"{what} needs {bytes_needed / 2**30:.2f} GiB, the budget is "
            f"{_budget / 2**30:.2f} GiB; {hint} or raise it with vaefast.set_memory(bytes)"
        )
