"""What a margin is asked for with, and the draws that it rests on."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from vaefast import checks
from vaefast.certify.level import Over
from vaefast.certify.looks import Budget, Look, flop_per_draw, gather_evidence, plan
from vaefast.certify.probability import (
    RobustProbability,
    check_alpha,
    check_draws,
    check_radius,
    drawn_promise,
)
from vaefast.certify.provenance import require_draws, require_same
from vaefast.functional.displacement import FORMS
from vaefast.models.prepare import Prepared

__all__ = ["Drawn", "Request"]

DRAWS = ("samples", "alpha", "seed", "over")
UNSET = {"precision": "ieee", "over": "input"}
TAKES = {  # which arguments a method has a use for
    "first_order": (*DRAWS, "precision", "probability", "budget"),
    "whitened": (*DRAWS, "precision", "probability", "budget"),
    "local": (*DRAWS, "probability", "budget", "form"),
    "anchors": (*DRAWS, "budget"),
    "best": (*DRAWS, "budget", "form"),
    "lipschitz": ("variant",),
}


class Drawn(NamedTuple):
    """Evidence for p at each input.

    Args:
        p_lower: [B] float64.
        samples: [B] int64, draws behind each.
        alpha: error probability of each, or of ``over`` together.
        precision: of the draws.
        reproducible: how far a row depends on the batch.
        over: how many inputs share alpha.
        mark: of draws that were brought.
    """

    p_lower: Tensor
    samples: Tensor
    alpha: float
    precision: str
    reproducible: str
    over: int = 1
    mark: str = ""


@dataclass(frozen=True)
class Request:
    """The arguments of :func:`vaefast.certify.margin` beside the model and x; None: not given."""

    method: str
    r: float | Tensor
    samples: int | str | None = None
    alpha: float | None = None
    seed: int | None = None
    precision: str = "ieee"
    probability: RobustProbability | None = None
    variant: str | None = None
    budget: Budget | None = None
    form: str | None = None
    over: Over = "input"
    inputs: int = 1  # that share alpha, of ``over`` and the rows
    began: float = field(default_factory=time.monotonic)

    def check(self) -> None:
        """Refuse what the method has no use for.

        Raises:
            ValueError: naming the argument and the methods that take it.
        """
        names = (*DRAWS, "precision", "probability", "variant", "budget", "form")
        for name in names:
            given = getattr(self, name)
            if given is None or (name in UNSET and given == UNSET[name]):
                continue
            if name in TAKES[self.method]:
                continue
            if self.method == "lipschitz" and name != "form":
                raise ValueError(f'method "lipschitz" draws nothing; leave out {name}')
            takers = ", ".join(f'"{m}"' for m, takes in TAKES.items() if name in takes)
            raise ValueError(f'{name} is of method {takers}, got method="{self.method}"')
        checks.option(self.form or "smaller", "form", FORMS)
        if isinstance(self.samples, str) and self.samples != "auto":
            raise ValueError(f'samples must be a number or "auto", got "{self.samples}"')
        if self.samples is not None and not isinstance(self.samples, str):
            checks.count(self.samples, "samples")
        check_alpha(self.level)

    @property
    def level(self) -> float:
        """α of one input's draws."""
        return self.total / self.inputs

    @property
    def total(self) -> float:
        """α as given: of all inputs that share it."""
        return 1e-3 if self.alpha is None else self.alpha

    @property
    def deadline(self) -> float:
        """Until when draws may begin, of the monotonic clock."""
        seconds = self.budget.seconds if self.budget else None
        return math.inf if seconds is None else self.began + seconds

    def radius(self, prepared: Prepared) -> Tensor:
        """r [B]."""
        return check_radius(self.r, prepared.x)

    def looks(self, prepared: Prepared, default: int | str) -> list[Look]:
        """The sizes at which draws are looked at; ``default`` where no number is given."""
        samples = default if self.samples is None else self.samples
        number = 1 if isinstance(samples, str) else samples
        check_draws(number, self.level, self.seed or 0)
        cost = flop_per_draw(prepared) if samples == "auto" else 0.0
        return plan(samples, self.level, self.budget or Budget(), cost)

    def drawn(self, prepared: Prepared, default: int | str) -> Drawn:
        """The draws that the caller brings, or new ones."""
        radius = self.radius(prepared)
        if self.probability is not None:
            return self._brought(prepared, radius, self.probability)
        looks = self.looks(prepared, default)
        seconds = self.budget.seconds if self.budget else None
        how = self.precision, seconds
        found = gather_evidence(prepared, radius, looks, self.seed or 0, *how)
        promise = drawn_promise(prepared)
        return Drawn(*found, self.total, self.precision, promise, self.inputs)

    def _brought(self, prepared: Prepared, radius: Tensor, own: RobustProbability) -> Drawn:
        require_draws(own)
        checks.shape(own.p_lower, "probability.p_lower", [len(prepared.x)], "the rows of x")
        samples = self.samples
        if self.budget is not None or isinstance(samples, str):
            raise ValueError('probability brings its draws; leave out budget and samples="auto"')
        own_draws = {"samples": samples, "alpha": self.alpha, "seed": self.seed}
        if self.over != "input":
            own_draws["over"] = self.inputs
        require_same(own, prepared, radius, **own_draws)
        used = torch.full_like(prepared.index, own.samples)
        mark = f"{own.fingerprint} {own.samples} draws of seed {own.seed}"
        found = own.p_lower, used, own.alpha, own.precision, own.reproducible
        return Drawn(*found, own.over, mark)
