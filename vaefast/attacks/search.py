"""How an attack searches: plain data, and what it is told to maximise."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor

from vaefast.attacks.ascent import AscentRule
from vaefast.attacks.ball import Ball
from vaefast.attacks.random_start import Stream
from vaefast.models.prepare import Prepared

__all__ = ["Bound", "ClosedForm", "Given", "Objective", "Search", "Value"]

Value = Callable[[Tensor], Tensor]


class ClosedForm(ABC):
    """An objective that ends in a closed form, whose derivative needs no autograd."""

    @abstractmethod
    def outputs(self, point: Tensor, *constants: Tensor) -> tuple[Tensor, ...]:
        """What the model gives at the points [n, *event], [n, ...] each, through autograd."""

    @abstractmethod
    def sloped(
        self, outputs: tuple[Tensor, ...], *constants: Tensor
    ) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        """The objective [n] float64 of those outputs, and its derivative in each, like it but
        float64; None where it is 0.
        """

    def __call__(self, point: Tensor, *constants: Tensor) -> Tensor:
        return self.sloped(self.outputs(point, *constants), *constants)[0]


@dataclass(frozen=True, eq=False)
class Bound:
    """An objective for some inputs: a function that they share, and what is theirs.

    Args:
        function: of the points and the constants; equal for all blocks of one objective.
        constants: tensors.
    """

    function: Callable[..., Tensor]
    constants: tuple[Tensor, ...]

    def __call__(self, point: Tensor) -> Tensor:
        return self.function(point, *self.constants)


class Objective(Protocol):
    """What an attack maximises.

    Args:
        generic: some part is evaluated as a module.
        ops: the registered ops that all else goes through.
        width: rows that the model sees for one point.
        modules: whose weights the objective reads; what is no module is passed over.
    """

    generic: bool
    ops: tuple[str, ...]
    width: int
    modules: tuple[object, ...]

    def bind(self, part: Prepared) -> tuple[Bound, Value]:
        """(searched, reported) for these inputs, with their references encoded once.

        Each takes [b·k, *event], the k points of an input side by side, and returns [b·k] float64.
        """

    def bytes_per_row(self) -> int:
        """Working bytes of ``searched`` and its gradient for one point."""


class Given(NamedTuple):
    """Points that one restart begins at the strongest of.

    Args:
        points: [B, k, *event], in the ball and the box.
        restart: which restart.
    """

    points: Tensor
    restart: int


@dataclass(frozen=True)
class Search:
    """How an attack searches.

    Attributes:
        eps, alpha, low, high: [B], in the scale of x and of its working dtype.
        norm: ``"linf"``, ``"l2"`` or ``"l1"``.
        steps: gradient steps.
        restarts: starts per input.
        seed: 64-bit seed.
        keep: ``"best"`` (the best restart of each input) or ``"all"``.
        select: ``"best"`` (the best iterate of each restart) or ``"last"``.
        start: where a restart begins.
        ascent: how it goes on; called with alpha and the number of steps.
        given: where one of the restarts begins instead, or None.
        images: tensors of x's size alive in a step: centre, point, best, gradient, temporaries.
    """

    eps: Tensor
    alpha: Tensor
    low: Tensor
    high: Tensor
    norm: str
    steps: int
    restarts: int
    seed: int
    keep: str
    select: str
    start: Callable[[Ball, Stream], Tensor]
    ascent: AscentRule
    given: Given | None = None
    images: int = 10
