"""The affine form of a displacement's bound as a backend's kernel gives it."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor

from vaefast.functional.displacement_walk import Walk
from vaefast.functional.network import Tape
from vaefast.types import Network

__all__ = ["INFLATION", "Affine", "Kernel"]

INFLATION = 1.0 + 1e-9


class Affine(NamedTuple):
    """What the affine form gave.

    Args:
        bound: [n, groups], before it is rounded up.
        rounding: [n, groups], what floating point can take off.
        ends: the units' u in each nonlinear layer, ([n, units], [n, units]); None where they were
            not asked for.
    """

    bound: Tensor
    rounding: Tensor
    ends: list[tuple[Tensor, Tensor]] | None

    @property
    def rounded_up(self) -> Tensor:
        return INFLATION * self.bound + self.rounding

    def part(self, rows: slice) -> Affine:
        ends = None if self.ends is None else [(lo[rows], hi[rows]) for lo, hi in self.ends]
        return Affine(self.bound[rows], self.rounding[rows], ends)


class Kernel(Protocol):
    """A backend's affine form."""

    def passed(self, x: Tensor, net: Network) -> Tape:
        """The pass at the centres."""

    def affine(
        self,
        walk: Walk,
        radius: Tensor,
        scale: Tensor | None,
        groups: int,
        rows: slice | Tensor,
        ends: bool,
    ) -> Affine:
        """Of n rows of the walk at ``radius`` [n], scaled by [n, m]."""
