"""The tasks of a run: from some inputs to named values of each."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vaefast import attacks, certify, geometry, hmc
from vaefast.certify.several import each_at
from vaefast.jobs.plan import RunPlan
from vaefast.jobs.spread import COLUMN, spread
from vaefast.models import VAE
from vaefast.runtime import batching
from vaefast.runtime.reasons import Reasons, reasons

__all__ = ["Computed", "compute"]

NO_VALUE = "the result is not finite"


@dataclass(frozen=True)
class Computed:
    """What a task made of some inputs.

    Attributes:
        values: [n] or [n, ...] tensors by the names of their columns.
        failed: [n] bool: the row says nothing.
        reasons: [n]: why it failed or abstained, "" where neither.
        guarantee: what the values promise, "" where nothing.
        reproducible: "bits", "blocks" or "round-off".
    """

    values: dict[str, Tensor]
    failed: Tensor
    reasons: Reasons
    guarantee: str = ""
    reproducible: str = "bits"
    notes: dict[str, str] = field(default_factory=dict)


def compute(vae: VAE, x: Tensor, index: Tensor, plan: RunPlan, alpha: float) -> Computed:
    """The plan's task on inputs [n, *event] of these global numbers, at level ``alpha`` each."""
    with warnings.catch_warnings():  # the table says what they would, row by row
        warnings.simplefilter("ignore", attacks.AttackWarning)
        warnings.simplefilter("ignore", hmc.SamplerWarning)
        return _TASKS[plan.task](vae, x, index, plan, alpha)


def _arguments(plan: RunPlan, index: Tensor, *without: str) -> dict[str, Any]:
    found = dict(plan.options) | {"seed": plan.seed, "index": index, "precision": plan.precision}
    if isinstance(found.get("budget"), Mapping):
        found["budget"] = certify.Budget(**found["budget"])
    return {name: value for name, value in found.items() if name not in without}


def _at_all_radii(one: Callable[[float], Computed], plan: RunPlan) -> Computed:
    """The columns of every radius, side by side; those of a lone one as they are called."""
    parts = [one(r) for r in plan.r]
    if len(parts) == 1:
        return parts[0]
    values = {
        f"{name}_r{r:g}": value
        for r, part in zip(plan.r, parts, strict=True)
        for name, value in part.values.items()
    }
    why = [
        "; ".join(dict.fromkeys(f"r = {r:g}: {w}" for r, w in zip(plan.r, row, strict=True) if w))
        for row in zip(*(part.reasons for part in parts), strict=True)
    ]
    failed = torch.stack([part.failed for part in parts]).any(0)
    promise = batching.weakest(*(part.reproducible for part in parts))
    return Computed(values, failed, tuple(why), parts[0].guarantee, promise)


def _margin(vae: VAE, x: Tensor, index: Tensor, plan: RunPlan, alpha: float) -> Computed:
    drawn = plan.options.get("method") != "lipschitz"
    shared = _shared_draws(vae, x, index, plan, alpha)
    without = ("seed", "samples") if shared else () if drawn else ("seed", "precision")
    options = _arguments(plan, index, *without)
    options |= {"alpha": alpha} if drawn and not shared else {}

    def one(r: float) -> Computed:
        brought: dict[str, Any] = {"probability": shared[r]} if shared else {}
        found = certify.margin(vae, x, r, **options, **brought)
        values = {"margin": found.margin, "p_lower": found.p_lower, "abstain": found.abstain}
        if found.samples is not None:
            values["samples"] = found.samples
        guarantee = str(found.guarantee)
        return Computed(values, found.margin.isnan(), found.reasons, guarantee, found.reproducible)

    return _at_all_radii(one, plan)


def _shared_draws(
    vae: VAE, x: Tensor, index: Tensor, plan: RunPlan, alpha: float
) -> dict[float, certify.RobustProbability]:
    """Of several radii of "local" with a fixed number of draws; empty where each has its own.

    With ``samples="auto"`` each radius decides on its own how many draws pay.
    """
    options = plan.options
    fixed = isinstance(options.get("samples"), int) and not {"budget", "over"} & set(options)
    if options.get("method") != "local" or not fixed or len(plan.r) < 2:
        return {}
    how = {"samples": options["samples"], "seed": plan.seed, "index": index, "alpha": alpha}
    return dict(zip(plan.r, each_at(vae, x, plan.r, **how), strict=True))


def _probability(vae: VAE, x: Tensor, index: Tensor, plan: RunPlan, alpha: float) -> Computed:
    options = _arguments(plan, index) | {"alpha": alpha}
    if len(plan.r) > 1:
        shared = dict(zip(plan.r, each_at(vae, x, plan.r, **options), strict=True))
    else:
        shared = {r: certify.robust_probability(vae, x, r, **options) for r in plan.r}

    def one(r: float) -> Computed:
        found = shared[r]
        values = {"p": found.p, "p_lower": found.p_lower, "hits": found.hits}
        why = reasons(len(x), {"x is not finite": found.p.isnan()})
        return Computed(values, found.p.isnan(), why, reproducible=found.reproducible)

    found = _at_all_radii(one, plan)
    if plan.band:
        found.values[COLUMN] = spread(vae, x, index, plan)
    return found


def _empirical(vae: VAE, x: Tensor, index: Tensor, plan: RunPlan, alpha: float) -> Computed:
    def one(r: float) -> Computed:
        options = _arguments(plan, index, "precision")
        found = certify.empirical_margin(vae, x, r, alpha=alpha, **options)
        values = {"margin": found.margin, "found": found.found, "searched_to": found.searched_to}
        if plan.keeps_arrays:
            values["x_adv"] = found.x_adv
        return Computed(
            values, found.margin.isnan(), found.reasons, reproducible=found.reproducible
        )

    return _at_all_radii(one, plan)


def _attack(
    function: Callable[..., attacks.AttackResult],
    vae: VAE,
    x: Tensor,
    index: Tensor,
    plan: RunPlan,
    alpha: float,
) -> Computed:
    box = {} if plan.box is None else {"low": plan.box[0], "high": plan.box[1]}
    found = function(vae, x, **(box | _arguments(plan, index, "precision")))
    values = {"objective": found.objective, "perturbation_norm": found.perturbation_norm}
    values["best_restart"] = found.best_restart
    if plan.keeps_arrays:
        values["x_adv"] = found.x_adv
    return Computed(values, found.failed, found.reasons, reproducible=found.reproducible)


def _defend(vae: VAE, x: Tensor, index: Tensor, plan: RunPlan, alpha: float) -> Computed:
    found = hmc.defend(vae, x, **_arguments(plan, index))
    result = found.result
    values = {
        "accept_rate": result.accept_rate.mean(1),
        "divergent": result.divergent.sum(1),
        "step_size": result.step_size,
    }
    if plan.keeps_arrays:
        values |= {"z": found.z, "reconstruction": found.reconstruction}
    return Computed(values, result.failed, result.reasons, reproducible=result.reproducible)


def _spectrum(vae: VAE, x: Tensor, index: Tensor, plan: RunPlan, alpha: float) -> Computed:
    vectors = 1 if plan.keeps_arrays else 0
    options = {"vectors": vectors} | _arguments(plan, index, "precision")
    found = geometry.pullback_spectrum(vae, x, **options)
    values = {"eigenvalues": found.eigenvalues}
    if plan.keeps_arrays:
        values["vectors"] = found.vectors
    failed = found.eigenvalues.isnan().any(1)
    why = reasons(len(x), {NO_VALUE: failed})
    return Computed(values, failed, why, reproducible="blocks")  # by LAPACK


_TASKS: dict[str, Callable[[VAE, Tensor, Tensor, RunPlan, float], Computed]] = {
    "margin": _margin,
    "robust_probability": _probability,
    "empirical_margin": _empirical,
    "latent": partial(_attack, attacks.latent),
    "max_damage": partial(_attack, attacks.max_damage),
    "defend": _defend,
    "spectrum": _spectrum,
}
