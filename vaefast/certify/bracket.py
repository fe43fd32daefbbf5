"""What an attack's search for a margin keeps of each input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from vaefast.attacks.result import AttackResult
from vaefast.runtime.batching import Rows

__all__ = ["Bounds", "Bracket"]


class Bounds(NamedTuple):
    """What the caller asks of each input."""

    r: Tensor  # [b]
    r_max: Tensor  # [b] float64
    low: Tensor  # [b]
    high: Tensor  # [b]

    def take(self, rows: Rows) -> Bounds:
        return Bounds(*[t[rows] for t in self])


@dataclass
class Bracket:
    """Per input: held at ``safe``, broke at ``broken`` (infinite where it never did)."""

    safe: Tensor  # [b] float64
    broken: Tensor  # [b] float64
    witness: Tensor  # [b, *event], the input that broke
    nonfinite: Tensor  # [b] int64, gradients of the attacks that were not finite
    usable: Tensor  # [b] bool, some attack had a gradient to step along

    def update(self, rows: Tensor, radius: Tensor, broke: Tensor, x_adv: Tensor) -> None:
        """Record what happened to the inputs numbered ``rows`` at ``radius``, [len(rows)] each."""
        self.safe[rows[~broke]] = radius[~broke]
        self.broken[rows[broke]] = radius[broke]
        self.witness[rows[broke]] = x_adv[broke]

    def count(self, rows: Tensor, attack: AttackResult | None) -> None:
        """Record what gradients an attack on them had."""
        if attack is not None and attack.nonfinite_gradients is not None:
            self.usable[rows] |= ~attack.failed
            self.nonfinite[rows] += attack.nonfinite_gradients
