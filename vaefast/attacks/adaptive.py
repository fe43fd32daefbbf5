"""Attacks that go through the defence: what they maximise is what the defence leaves."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vaefast import checks
from vaefast.attacks.ball import working
from vaefast.attacks.engine import maximise
from vaefast.attacks.measures import Measure
from vaefast.attacks.pathways import PATHWAYS, UNDEFENDED, Defended, available
from vaefast.attacks.result import AttackResult, AttackWarning
from vaefast.attacks.search import Bound, Search, Value
from vaefast.functional.rows import finite
from vaefast.hmc.through import Defending
from vaefast.models.prepare import Prepared
from vaefast.philox import seed_apart

__all__ = ["attack_through", "check_undefended"]

SEARCH, SELECTION, REPORT = range(1, 4)  # draws of their own, by seed_apart
ROWS = 4  # whose chains are looked at for chaos
CHAOTIC = 100.0


def check_undefended(gradient: str | None) -> None:
    """Refuse the choice of a gradient where no defence is gone through."""
    if gradient is not None:
        raise ValueError(f"gradient={gradient!r} is for an attack with through_defence=")


def attack_through(
    prepared: Prepared,
    x: Tensor,
    search: Search,
    measure: Measure,
    defence: Mapping[str, Any],
    gradient: str | None,
    undefended: Callable[[], AttackResult],
) -> AttackResult:
    """The strongest points against the defence that the gradients find.

    Every gradient searches on one set of draws and ends at its last iterate, for the best of many
    noisy values is mostly the luckiest; which of them is strongest for an input is decided on a
    second set of draws, and its objective reported on a third.

    Args:
        undefended: the same attack on the model itself, one of the candidates.
    """
    defending, wanted = Defending.checked(prepared, defence), _names(gradient)
    if not len(x):
        return undefended()
    names = available(defending, wanted)
    if not names and gradient == "posterior":
        raise ValueError(
            'gradient="posterior" needs at least 2 transitions after the warm-up, got steps=1'
        )
    if not names:
        raise ValueError(
            f"gradient={gradient!r} passes through a decoder that lowers to a network, and this "
            f'one does not ({prepared.maps.decoder.why_not}); use "posterior" or "spsa"'
        )
    on = _Against(prepared, replace(search, select="last"), measure, defending)
    if "chain" in names:
        _warn_of_chaos(on)
    found = []
    for name in names:
        if name == UNDEFENDED:
            result = undefended()
            unseen = None if result.history is None else result.history * torch.nan
            objective = on.values(result, SELECTION)
            found.append(replace(result, objective=objective, history=unseen))
        else:
            found.append(maximise(_Through(on, name), prepared, x, on.search))
    result = _strongest(found, names)
    return replace(result, objective=on.values(result, REPORT))


def _warn_of_chaos(on: _Against) -> None:
    """One line where the gradient grows along the chains of the first inputs, or overflows."""
    few = on.prepared.at(slice(0, ROWS))
    growth = on.defending.growth(few, seed=on.search.seed)[-1][finite(few.x)]
    if len(growth) and (middle := growth.nan_to_num(nan=torch.inf).median()) > CHAOTIC:
        warnings.warn(
            f"through_defence: the gradient of a chain's end is {float(middle):.2g} times as large "
            f"{on.defending.options.transitions} transitions before, by the first {len(growth)} "
            "inputs: the chain is chaotic and its gradient noise; see the result's gradient for "
            "what found each row",
            AttackWarning,
            stacklevel=5,
        )


def _names(gradient: str | None) -> tuple[str, ...]:
    """The names of the gradients that are tried; all for None."""
    if gradient is None:
        return (UNDEFENDED, *PATHWAYS)
    return (checks.option(gradient, "gradient", (UNDEFENDED, *PATHWAYS)),)


class _Against(NamedTuple):
    """What all gradients of one attack share."""

    prepared: Prepared
    search: Search
    measure: Measure
    defending: Defending

    def at(self, part: Prepared, which: int) -> Defended:
        """The value at these inputs' points on one of the sets of draws."""
        seed = seed_apart(self.search.seed, which)
        with torch.no_grad():
            reference = self.measure.reference(
                part, lambda part, image: self.defending.ends(part, image, seed=seed)
            )
        eps = self.search.eps[part.gather]
        return Defended(part, self.defending, self.measure, reference, eps, self.search.norm, seed)

    def bytes_per_point(self, draws: int) -> int:
        """Working bytes of a value and its gradient; ``draws`` of each chain are decoded."""
        maps, itemsize = self.prepared.maps, self.prepared.itemsize
        pixels = (8 + 6 * draws) * self.prepared.pixels
        latents = (self.defending.options.transitions + 16) * maps.latents
        chain = (pixels + latents) * itemsize + 2 * maps.decoder.bytes_per_row(itemsize)
        return maps.mean.bytes_per_row(itemsize) + self.defending.options.chains * chain

    def values(self, result: AttackResult, which: int) -> Tensor:
        """The objective at the points of a result, like its own; NaN where they are not finite."""
        x_adv = result.x_adv
        restarts = x_adv.shape[1] if result.objective.ndim > 1 else 1

        def run(part: Prepared) -> tuple[Tensor, ...]:
            point = working(x_adv[part.gather].reshape(-1, *part.x.shape[1:]))
            good = finite(point)
            point = point.masked_fill(~good.reshape(-1, *[1] * (point.ndim - 1)), 0.0)
            with torch.no_grad():
                value = self.at(part, which).value(point).masked_fill(~good, torch.nan)
            return (value.reshape(len(part.x), -1),)

        width = restarts * self.defending.options.chains
        cost = restarts * self.bytes_per_point(0)
        (value,) = self.prepared.rows(run, cost, width=width, generic=True)
        return value.reshape(result.objective.shape)


class _Through:
    """The objective of one gradient: searched on one set of draws, reported on another."""

    generic = True  # sums over chains and pixels are the framework's
    ops: tuple[str, ...] = ()

    def __init__(self, against: _Against, name: str) -> None:
        self.against, self.name = against, name
        self.width = against.defending.options.chains
        vae = against.prepared.vae
        self.modules: tuple[object, ...] = (vae, *against.measure.modules)

    def bytes_per_row(self) -> int:
        draws = self.against.defending.options.steps if self.name == "posterior" else 0
        return self.against.bytes_per_point(draws)

    def bind(self, part: Prepared) -> tuple[Bound, Value]:
        searched = PATHWAYS[self.name](self.against.at(part, SEARCH))
        selecting = self.against.at(part, SELECTION)

        def reported(point: Tensor) -> Tensor:
            with torch.no_grad():
                return selecting.value(point)

        return Bound(searched, ()), reported


def _strongest(found: list[AttackResult], names: tuple[str, ...]) -> AttackResult:
    """Of each input the result of the gradient whose best restart is strongest."""
    value = torch.stack([_best(result) for result in found])  # [methods, B]
    which = value.argmax(0)
    rows = torch.arange(len(which), device=which.device)

    def chosen(field: str, dim: int = 0) -> Tensor:
        each = torch.stack([getattr(result, field).movedim(dim, 0) for result in found])
        return each[which, rows].movedim(0, dim)

    picked = which.tolist()
    return replace(
        found[0],
        x_adv=chosen("x_adv"),
        objective=chosen("objective"),
        perturbation_norm=chosen("perturbation_norm"),
        best_restart=chosen("best_restart"),
        failed=chosen("failed"),
        history=chosen("history", 1),
        nonfinite_gradients=chosen("nonfinite_gradients"),
        reasons=tuple(found[k].reasons[row] for row, k in enumerate(picked)),
        gradient=tuple(names[k] for k in picked),
        reproducible="round-off",
    )


def _best(result: AttackResult) -> Tensor:
    """[B] float64, of an input's best restart; −∞ where there is none, or no gradient."""
    value = result.objective.flatten(1).amax(1) if result.objective.ndim > 1 else result.objective
    return value.masked_fill(value.isnan() | result.failed, -torch.inf)
