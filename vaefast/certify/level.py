"""Whose error probability α is: each input's own, or that of a whole run, shared out equally.

For one statement about n inputs that holds for all of them at once each gets α/n (Bonferroni). A
batch of a larger run names the run's size, so that its rows get what they would get in one call.
"""

from __future__ import annotations

from vaefast import checks

__all__ = ["OVER", "Over", "inputs_of"]

Over = str | int
OVER = ("input", "run")


def inputs_of(over: Over, rows: int) -> int:
    """n: how many inputs share α; 1 where each has its own.

    Args:
        over: "input", "run" for all ``rows``, or the number of a run's inputs.
        rows: of the batch.

    Raises:
        TypeError: neither a word nor a whole number.
        ValueError: another word, or a run of fewer inputs than the batch has.
    """
    if isinstance(over, str):
        if over not in OVER:
            raise ValueError(f'over must be "input", "run" or a number of inputs, got "{over}"')
        return max(rows, 1) if over == "run" else 1
    count = checks.count(over, "over")
    if count < rows:
        raise ValueError(
            f"over must be at least the {rows} rows of x, whose run it counts, got {count}"
        )
    return count
