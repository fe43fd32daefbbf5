"""Certificates that rest on Lipschitz constants: no draws, no first order, any perturbation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor

from vaefast import checks
from vaefast.certify.events import Event
from vaefast.certify.guarantee import Guarantee
from vaefast.certify.theorems import VARIANTS, Setting, largest_shift, misses
from vaefast.functional.network import bytes_per_row
from vaefast.functional.rows import finite
from vaefast.models.lipschitz import Constants
from vaefast.models.lipschitz.constants import Maps, constants_of, lipschitz_maps
from vaefast.models.lipschitz.evaluation import with_error
from vaefast.models.lipschitz.norms import UP
from vaefast.models.prepare import Prepared
from vaefast.runtime import numerics

__all__ = ["Certified", "CertifiedProbability", "certified_margins", "certified_probability"]


@dataclass(frozen=True)
class CertifiedProbability:
    """A lower bound of the event's probability after any perturbation of a given length.

    Attributes:
        p_lower: [B, K] float64: P(event) ≥ p_lower[i, k] for every ‖δ‖₂ ≤ radii[k]; NaN where the
            input is not finite.
        radii: [K] float64, lengths of the perturbation, pixel scale.
        r: [B] float64, the radius in output space.
        event: an :class:`Event`.
        guarantee: a :class:`Guarantee` that is sound.
        constants: that it rests on.
    """

    p_lower: Tensor
    radii: Tensor
    r: Tensor
    event: Event
    guarantee: Guarantee
    constants: Constants


class Certified(NamedTuple):
    """Margins by each bound [B] float64, P at x itself, and what they rest on.

    NaN where x or r is not finite.
    """

    bounds: dict[str, Tensor]
    p_lower: Tensor
    event: Event
    constants: Constants


def certified_margins(prepared: Prepared, r: float | Tensor, variant: str | None) -> Certified:
    """The largest shift that each bound allows; 0 where P at x itself is at most ½."""
    event, at = _event(variant), _setting(prepared, r)
    at_x = 1.0 - _least(misses(at, event, torch.zeros_like(at.r)[:, None]))[:, 0]
    good, bounds = finite(prepared.x, at.r), largest_shift(at, event)
    named = {name: torch.where(good, bound, torch.nan) for name, bound in bounds.items()}
    return Certified(named, torch.where(good, at_x, torch.nan), event, at.constants)


def certified_probability(
    prepared: Prepared, r: float | Tensor, radii: Sequence[float] | Tensor, variant: str | None
) -> CertifiedProbability:
    """Theorem 1's curve, by the smallest of the bounds."""
    event, at = _event(variant), _setting(prepared, r)
    lengths = _lengths(radii).to(at.r)
    p_lower = 1.0 - _least(misses(at, event, lengths.expand(len(at.r), -1)))
    good = finite(prepared.x, at.r)
    p_lower = torch.where(good[:, None], p_lower, torch.nan)
    return CertifiedProbability(p_lower, lengths, at.r, event, Guarantee.LIPSCHITZ, at.constants)


def _event(variant: str | None) -> Event:
    if variant is not None:
        checks.option(variant, "variant", ("barrett2022",))
    return VARIANTS[variant]


def _least(found: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(found.values())).amin(0)


def _lengths(radii: Sequence[float] | Tensor) -> Tensor:
    lengths = torch.as_tensor(radii, dtype=torch.float64, device="cpu")
    if lengths.ndim != 1 or not bool(((lengths >= 0) & lengths.isfinite()).all()):
        raise ValueError(f"radii must be numbers [K], at least 0 and finite, got {radii}")
    return lengths


def _setting(prepared: Prepared, r: float | Tensor) -> Setting:
    x, vae = prepared.x, prepared.vae
    radius = checks.per_row(
        r, "r", len(x), like=torch.empty(0, dtype=torch.float64, device=x.device), minimum=0.0
    )
    if bool((radius == torch.inf).any()):
        raise ValueError("r must be finite, got inf")
    if prepared.context is not None:
        raise ValueError(
            'method "lipschitz" takes no context: the constants of a conditional VAE are not known'
        )
    example = x[:1] if len(x) else x.new_zeros(1, *x.shape[1:])
    maps = lipschitz_maps(vae, example.nan_to_num(0.5, 0.5, 0.5))
    constants = constants_of(maps, vae)
    latents = maps.mean.out_features
    if maps.std is None:
        std = torch.exp(0.5 * cast(Tensor, vae.encoder.logvar).detach().double()) * UP
        same = bool((std == std[0]).all())
        norm, largest = torch.linalg.vector_norm(std) * UP, std.max()
        norm, largest = norm.expand(len(x)), largest.expand(len(x))
        return Setting(constants, norm, largest, radius, latents, isotropic=same)
    with numerics.products(x.device, "ieee"):
        norm, largest = prepared.rows(
            lambda part: _widths(part.x, maps), _bytes(maps, x), generic=True
        )
    return Setting(constants, norm, largest, radius, latents)


def _widths(x: Tensor, maps: Maps) -> tuple[Tensor, Tensor]:
    """Upper bounds of ‖σ‖₂ and max σ_i after the projection, [b] float64 each."""
    assert maps.std is not None
    std, error = with_error(x.flatten(1), maps.std)
    norm, off = (torch.linalg.vector_norm(t, dim=1) * UP for t in (std, error))
    largest = (std + error).amax(1)
    if math.isinf(maps.ball):
        return norm + off, largest
    shrunk = maps.ball / (norm / UP**2 - off).clamp(min=maps.ball)  # at least the true factor
    return (norm + off).clamp(max=maps.ball), largest * shrunk * UP


def _bytes(maps: Maps, x: Tensor) -> int:
    assert maps.std is not None
    return 4 * bytes_per_row(maps.std, x.new_empty(0, dtype=torch.float64))
