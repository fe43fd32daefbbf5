"""How values are spread, for any number of them, in little memory."""

from __future__ import annotations

import numpy as np

__all__ = ["Spread"]

DROPPED = 42  # lowest bits of a float64 that are not told apart: ten of its digits are left


class Spread:
    """Counts of values by their first binary digits: to 0.1 % of a value, whatever its size.

    A value is never rounded away from 0, so "how many are at least this" is exact at every edge of
    :meth:`at_least` that is not negative. NaN is left out.
    """

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}

    def add(self, values: np.ndarray) -> None:
        """Count values [n]."""
        values = np.asarray(values, np.float64)
        values = values[~np.isnan(values)] + 0.0  # no negative zero
        keys = np.abs(values).view(np.int64) >> DROPPED
        keys = np.where(values >= 0, keys, -1 - keys)
        for key, count in zip(*np.unique(keys, return_counts=True), strict=True):
            self._counts[int(key)] = self._counts.get(int(key), 0) + int(count)

    @property
    def count(self) -> int:
        return sum(self._counts.values())

    def at_least(self) -> tuple[np.ndarray, np.ndarray]:
        """Values, ascending, and the share of all that are at least as large."""
        keys = np.array(sorted(self._counts), np.int64)
        counts = np.array([self._counts[int(key)] for key in keys], np.int64)
        share = counts[::-1].cumsum()[::-1] / max(1, counts.sum())
        return np.array([_edge(int(key)) for key in keys], np.float64), share

    def quantile(self, q: float) -> float | None:
        """The largest value that a share 1 − q of all reaches; None of nothing."""
        values, share = self.at_least()
        if not len(values):
            return None
        return float(values[max(0, int(np.searchsorted(-share, -(1.0 - q), side="right")) - 1)])


def _edge(key: int) -> float:
    """The end of a bin that is nearest to 0."""
    if key >= 0:
        return float(np.array(key << DROPPED, np.int64).view(np.float64))
    return -float(np.array((-1 - key) << DROPPED, np.int64).view(np.float64))
