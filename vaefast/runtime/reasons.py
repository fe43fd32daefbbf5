"""Why rows of a result failed: one string per row, shared by every result with ``failed``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from torch import Tensor

__all__ = ["Reasons", "counted", "listed", "marked", "reasons"]

Reasons = tuple[str, ...]  # one per row, "" where nothing failed
SHOWN = 5  # row numbers in a message


def reasons(rows: int, causes: Mapping[str, Tensor]) -> Reasons:
    """Of every row the first cause whose mask holds, "" where none does.

    Args:
        rows: B.
        causes: [B] bool masks by what they mean, the most telling first.
    """
    found = [""] * rows
    for cause, mask in reversed([*causes.items()]):
        for row in marked(mask):
            found[row] = cause
    return tuple(found)


def counted(causes: Iterable[str]) -> str:
    """How many rows each reason holds for, the most frequent first: "few draws (3), x is NaN (1)".

    Args:
        causes: one per row, "" where there is none.
    """
    counts = Counter(cause for cause in causes if cause)
    return ", ".join(f"{cause} ({count})" for cause, count in counts.most_common())


def marked(mask: Tensor) -> list[int]:
    """Numbers of the rows that a mask [B] holds for, also of a tensor that wraps others."""
    if type(mask) is Tensor:
        return mask.nonzero()[:, 0].tolist()
    return [row for row in range(len(mask)) if bool(mask[row])]


def listed(rows: Iterable[int]) -> str:
    """Row numbers for a message: "row 3", "rows 0, 3" or "rows 0, 1, 2, 3, 4, ...".

    Args:
        rows: at least one.
    """
    numbers = list(rows)
    shown = ", ".join(map(str, numbers[:SHOWN])) + (", ..." if len(numbers) > SHOWN else "")
    return f"row{'s' if len(numbers) > 1 else ''} {shown}"
