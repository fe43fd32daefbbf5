"""What is measured of a model: its bound, its certified margins, and what attacks leave of them."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaefast import certify, elbo
from vaefast.audit import Stages
from vaefast.certify import Event
from vaefast.models import VAE, lipschitz_constants
from vaefast.reproduce.barrett2022.inside import CURVE, attack_inside, left_at, strongest_at
from vaefast.reproduce.barrett2022.settings import PUBLISHED, Plan, Settings
from vaefast.reproduce.barrett2022.theorems import published_margins
from vaefast.reproduce.mlps import kept_numbers
from vaefast.reproduce.store import Store

__all__ = ["EVENTS", "Measured", "measure_model", "measured", "squared_error"]

EVENTS = {"fixed": Event.FIXED_CENTRE, "two": Event.TWO_DRAWS}
VARIANTS = {"fixed": None, "two": "barrett2022"}
DRAWS = 8  # of the bound


class Measured(NamedTuple):
    """Of one model, at B inputs, all float64.

    Args:
        elbo: lower bound of log p(x) [N], nats.
        error: mean squared error of g(μ(x)) [N].
        constants: a, b, c and the bound of ‖σ‖₂, computed from the weights [4]; NaN without.
        norm: ‖σ(x)‖₂ [B].
        certified_fixed, certified_two: margins of the two events [B]; 0 without constants.
        theorem: of two draws by Theorem 2 (3) alone, max(m₁, m₂) [B].
        published: the same with the constants before the sigmoids, as the published code has it.
        attacked_fixed, attacked_two: the smallest radius at which an attack broke the event [B]; ∞
            where none did.
        inside_...: :class:`Left` within a radius, [A, B]; [0, B] where none is of interest.
        lengths: of the curve [K].
        curve, curve_two: P of the events after the strongest attack of that length [K, B].
        promised: certified lower bound of P of the fixed centre [K, B]; 0 without constants.
    """

    plan: Plan
    elbo: np.ndarray
    error: np.ndarray
    constants: np.ndarray
    norm: np.ndarray
    certified_fixed: np.ndarray
    certified_two: np.ndarray
    theorem: np.ndarray
    published: np.ndarray
    attacked_fixed: np.ndarray
    attacked_two: np.ndarray
    inside_fixed: np.ndarray
    inside_two: np.ndarray
    inside_damage: np.ndarray
    inside_length: np.ndarray
    lengths: np.ndarray
    curve: np.ndarray
    curve_two: np.ndarray
    promised: np.ndarray


def measured(
    plan: Plan, vae: VAE, x: Tensor, settings: Settings, store: Store, stages: Stages
) -> Measured:
    """Compute it, or read what is finished."""

    def compute() -> dict[str, Tensor]:
        return measure_model(plan, vae, x, settings)

    return Measured(plan=plan, **kept_numbers(plan, settings.inputs, store, stages, compute))


@torch.no_grad()
def squared_error(vae: VAE, x: Tensor) -> Tensor:
    """Of g(μ(x)), mean over the pixels [N] float64."""
    return (vae.reconstruct(x) - x).flatten(1).double().square().mean(1)


def measure_model(plan: Plan, vae: VAE, x: Tensor, settings: Settings) -> dict[str, Tensor]:
    """The numbers of :class:`Measured`, by name, at the test inputs ``x``."""
    s, scored = settings, x[: settings.scored]
    x = x[: s.inputs]
    with torch.no_grad():
        norm = vae.posterior(x)[1].flatten(1).double().norm(dim=1)
    found = {
        "elbo": elbo.evaluate_elbo(vae, scored, samples=DRAWS, seed=s.seed).elbo,
        "error": squared_error(vae, scored),
        "norm": norm,
        **_certified(plan, vae, x, s),
        **_margins(vae, x, s),
    }
    if plan.group in PUBLISHED:
        return found | _nothing(len(x))
    radius = plan.level if plan.group == "radius" else s.radii[0]
    return found | attack_inside(vae, x, radius, s) | _curve(plan, vae, x, s)


def _certified(plan: Plan, vae: VAE, x: Tensor, settings: Settings) -> dict[str, Tensor]:
    none = torch.zeros(len(x), dtype=torch.float64, device="cpu")
    if not plan.lipschitz:  # σ = exp(½ log σ²) has no constant
        names = ("certified_fixed", "certified_two", "theorem", "published")
        constants = torch.full((4,), math.nan, dtype=torch.float64, device="cpu")
        return {**dict.fromkeys(names, none), "constants": constants}
    results = {
        name: certify.margin(vae, x, settings.r, method="lipschitz", variant=variant)
        for name, variant in VARIANTS.items()
    }
    bounds = results["two"].bounds
    return {
        "certified_fixed": results["fixed"].margin,
        "certified_two": results["two"].margin,
        "theorem": torch.maximum(bounds["theorem 2, m1"], bounds["theorem 2, m2"]),
        "published": published_margins(vae, x, settings.r),
        "constants": torch.tensor(
            lipschitz_constants(vae, x[:1]), dtype=torch.float64, device="cpu"
        ),
    }


def _margins(vae: VAE, x: Tensor, settings: Settings) -> dict[str, Tensor]:
    s = settings
    search: dict[str, Any] = {"restarts": s.restarts, "steps": s.attack_steps, "r_max": s.r_max}
    search |= {"seed": s.seed, "samples": s.samples}
    return {
        f"attacked_{name}": certify.empirical_margin(vae, x, s.r, event=event, **search).margin
        for name, event in EVENTS.items()
    }


def _curve(plan: Plan, vae: VAE, x: Tensor, settings: Settings) -> dict[str, Tensor]:
    s = settings
    lengths = torch.linspace(0.0, s.r_max, CURVE + 1, dtype=torch.float64, device="cpu")[1:]
    points = [strongest_at(vae, x, float(length), s) for length in lengths]
    left = [left_at(vae, x, point, s) for point in points]
    curve, two = (torch.stack([getattr(each, name) for each in left]) for name in ("fixed", "two"))
    promised = torch.zeros_like(curve)
    if plan.lipschitz:
        how: dict[str, Any] = {"method": "lipschitz", "radii": lengths}
        promised = certify.robust_probability(vae, x, s.r, **how).p_lower.mT.contiguous()
    return {"lengths": lengths, "curve": curve, "curve_two": two, "promised": promised}


def _nothing(rows: int) -> dict[str, Tensor]:
    names = [f"inside_{name}" for name in ("fixed", "two", "damage", "length")]
    empty = torch.empty(0, rows, dtype=torch.float64, device="cpu")
    named = dict.fromkeys((*names, "curve", "curve_two", "promised"), empty)
    return {**named, "lengths": empty[:, 0]}
