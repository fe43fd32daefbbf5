"""``penalty=``: an objective less λ‖x' − x‖₂, in place of a ball or beside one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from vaefast.attacks.presets import Preset
from vaefast.attacks.random_start import gaussian
from vaefast.attacks.search import Bound, ClosedForm, Objective, Value
from vaefast.functional.rows import repeated
from vaefast.models.prepare import Prepared

__all__ = ["SOFT", "Penalised"]

SOFT = Preset(  # how a penalised search goes on where the caller does not say
    "latent",
    {"norm": "l2", "optimizer": "adam", "steps": 200},
    source=(
        "Gondim-Ribeiro, Tabacof, Valle 2018, Adversarial attacks on variational autoencoders, "
        "eq. 5; Barrett et al. 2022, released code, soft=True (regularization_coefficient 1)"
    ),
    differs=(
        "Adam on all inputs and restarts in one batch, in place of L-BFGS-B on one image; best "
        "iterate; starts N(x, 0.01² I)"
    ),
    start=partial(gaussian, std=0.01),
)


class Penalised:
    """What an objective is at x' less λ‖x' − x‖₂.

    Args:
        objective: the other one.
        penalty: λ [B], in the objective's units over those of x.
    """

    def __init__(self, objective: Objective, penalty: Tensor) -> None:
        self.objective, self.penalty = objective, penalty
        self.generic, self.ops = objective.generic, objective.ops
        self.width, self.modules = objective.width, objective.modules

    def bytes_per_row(self) -> int:
        return self.objective.bytes_per_row()

    def bind(self, part: Prepared) -> tuple[Bound, Value]:
        inner, _ = self.objective.bind(part)
        kind = _ClosedLess if isinstance(inner.function, ClosedForm) else _Less
        constants = *inner.constants, part.x, self.penalty[part.gather].double()
        bound = Bound(kind(inner.function), constants)  # type: ignore[arg-type]
        return bound, bound


@dataclass(frozen=True)
class _Less:
    """The penalised objective, all of it through autograd."""

    function: Value

    def __call__(self, point: Tensor, *constants: Tensor) -> Tensor:
        *others, x, penalty = constants
        value = self.function(point, *others)
        return value - repeated(penalty, len(point) // len(x)) * _distance(point, x)


@dataclass(frozen=True)
class _ClosedLess(ClosedForm):
    """The same where the other objective has its derivatives in a closed form."""

    function: ClosedForm

    def outputs(self, point: Tensor, *constants: Tensor) -> tuple[Tensor, ...]:
        *others, x, _ = constants
        return *self.function.outputs(point, *others), _distance(point, x)

    def sloped(
        self, outputs: tuple[Tensor, ...], *constants: Tensor
    ) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        *inner, distance = outputs
        *others, x, penalty = constants
        weight = repeated(penalty, len(distance) // len(x))
        value, slopes = self.function.sloped(tuple(inner), *others)
        return value - weight * distance, (*slopes, -weight)


def _distance(point: Tensor, x: Tensor) -> Tensor:
    """‖x' − x‖₂ [n] float64; its derivative at 0 is 0."""
    delta = point.double() - repeated(x, len(point) // len(x)).double()
    return torch.linalg.vector_norm(delta.flatten(1), dim=1)
