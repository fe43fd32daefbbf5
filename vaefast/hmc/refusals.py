"""Which rows a prior or decoder raises an error for, where it would raise for the whole batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

__all__ = ["OUT_OF_MEMORY", "refused"]

OUT_OF_MEMORY = (MemoryError, torch.cuda.OutOfMemoryError)


def refused(evaluate: Callable[[Tensor], object], z: Tensor, safe: Tensor) -> Tensor:
    """[N] bool: with this row of z, and ``safe`` in the others, ``evaluate`` raises.

    Halves the rows that are in doubt: 2 k log₂ N evaluations for k such rows, each of all N rows,
    so that a library's products give the others the bits that they would have alone.

    Args:
        evaluate: of [N, d].
        z: [N, d].
        safe: [N, d], where ``evaluate`` is known to work.

    Raises:
        Exception: whatever ``evaluate`` raises at ``safe``.
    """
    evaluate(safe)
    bad = torch.zeros(len(z), dtype=torch.bool, device=z.device)
    for row in _raising(evaluate, z, safe, range(len(z))):
        bad[row] = True
    return bad


def _raising(
    evaluate: Callable[[Tensor], object], z: Tensor, safe: Tensor, rows: range
) -> Iterator[int]:
    tried = safe.clone()
    tried[rows.start : rows.stop] = z[rows.start : rows.stop]
    try:
        evaluate(tried)
    except OUT_OF_MEMORY:
        raise
    except Exception:
        if len(rows) == 1:
            yield rows.start
            return
        middle = len(rows) // 2
        yield from _raising(evaluate, z, safe, rows[:middle])
        yield from _raising(evaluate, z, safe, rows[middle:])
