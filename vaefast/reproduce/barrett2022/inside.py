"""Every attack of ours within a radius, and what it leaves of the event."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vaefast import attacks, certify
from vaefast.certify import Event
from vaefast.models import VAE
from vaefast.reproduce.barrett2022.settings import Settings

__all__ = ["ATTACKS", "CURVE", "Left", "attack_inside", "left_at", "strongest_at"]

CURVE = 8  # lengths of the curve, from r_max/8 to r_max
DIVERGENCES = ("skl", "kl_forward", "kl_reverse", "means", "w2")
PRESETS = ("kuzina2022", "photoguard", "mist")
TARGETED = PRESETS[1:]
METRICS = ("encoder", "fisher", "reconstruction")
ATTACKS = (  # in the order of their rows
    *(f"latent, {name}" for name in DIVERGENCES),
    "latent, constant steps",
    "latent, nearest input",
    "latent, towards another input",
    *(f"latent, {name}" for name in PRESETS),
    "maximum damage",
    "maximum damage, constant steps",
    "maximum damage, barrett2022",
    "maximum damage, ℓ∞",
    *(f"geometric, {name}" for name in METRICS),
    *(f"geometric, {name}, refined" for name in METRICS),
    *(f"margin search, {event}" for event in Event),
)
Attack = Callable[[VAE, Tensor], Tensor]  # x to x'


class Left(NamedTuple):
    """What is left of the event at perturbed inputs.

    Args:
        fixed, two: share of the draws within r, of the fixed centre and of two draws [B].
        damage: mean distance from the fixed centre, ℓ2, pixel scale [B].
        length: ‖x' − x‖₂ [B].
    """

    fixed: Tensor
    two: Tensor
    damage: Tensor
    length: Tensor


def attack_inside(vae: VAE, x: Tensor, radius: float, settings: Settings) -> dict[str, Tensor]:
    """:class:`Left` after every attack of ours with ‖x' − x‖₂ ≤ ``radius``, [A, B] each.

    Pixels may leave [0, 1], as in the definition of a margin.
    """
    found = [
        left_at(vae, x, attack(vae, x), settings) for attack in _attacks(vae, x, radius, settings)
    ]
    stacked = Left(*(torch.stack(values) for values in zip(*found, strict=True)))
    return {f"inside_{name}": value for name, value in stacked._asdict().items()}


def strongest_at(vae: VAE, x: Tensor, length: float, settings: Settings) -> Tensor:
    """The maximum-damage attack, with a start along the metric among its restarts."""
    s = settings
    box: dict[str, Any] = {"low": -length, "high": 1.0 + length}
    search: dict[str, Any] = {"steps": s.attack_steps, "restarts": s.restarts, "seed": s.seed}
    found = attacks.max_damage(vae, x, eps=length, norm="l2", init="geometric", **search, **box)
    return found.x_adv


@torch.no_grad()
def left_at(vae: VAE, x: Tensor, moved: Tensor, settings: Settings) -> Left:
    """By ``samples`` draws at x' [B, *event], which had no part in any attack."""
    s = settings
    generator = torch.Generator(device="cpu").manual_seed(s.seed)
    centre = vae.g(vae.posterior(x)[0]).flatten(1)
    fixed, two, damage = torch.zeros(3, len(x), dtype=torch.float64, device="cpu")
    for _ in range(s.samples):
        here, there = (_drawn(vae, each, generator) for each in (x, moved))
        distance = (there - centre).double().norm(dim=1)
        damage += distance / s.samples
        fixed += (distance <= s.r).double() / s.samples
        two += ((there - here).double().norm(dim=1) <= s.r).double() / s.samples
    length = (moved.double() - x.double()).flatten(1).norm(dim=1)
    return Left(fixed, two, damage, length)


def _drawn(vae: VAE, x: Tensor, generator: torch.Generator) -> Tensor:
    """A reconstruction of each input, g(μ + σ⊙η) [B, D]."""
    mean, std = vae.posterior(x)
    noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device="cpu")
    return vae.g(mean + std * noise).flatten(1)


def _attacks(vae: VAE, x: Tensor, radius: float, settings: Settings) -> list[Attack]:
    """In the order of ``ATTACKS``."""
    s = settings
    box: dict[str, Any] = {"low": -radius, "high": 1.0 + radius}
    search: dict[str, Any] = {"steps": s.attack_steps, "restarts": s.restarts, "seed": s.seed}
    search |= box
    ball: dict[str, Any] = {"eps": radius, "norm": "l2"}
    cube: dict[str, Any] = {"eps": radius / math.sqrt(x[0].numel()), "norm": "linf"}
    damage = partial(attacks.max_damage, **search)
    along = partial(attacks.geometric, directions=3, **ball, **box)
    runs: list[Callable[..., Any]] = [
        *_latent_attacks(vae, x, partial(attacks.latent, **search), ball, cube),
        partial(damage, init="geometric", **ball),
        partial(damage, alpha=radius / 4, **ball),
        partial(damage, preset="barrett2022", **ball),
        partial(damage, init="geometric", **cube),
        *(partial(along, of=metric) for metric in METRICS),
        *(partial(along, of=metric, refine=s.attack_steps) for metric in METRICS),
    ]
    found: list[Attack] = [partial(_adversarial, run) for run in runs]
    return [*found, *(partial(_searched, radius, settings, event) for event in Event)]


def _latent_attacks(
    vae: VAE,
    x: Tensor,
    latent: Callable[..., Any],
    ball: Mapping[str, Any],
    cube: Mapping[str, Any],
) -> list[Callable[..., Any]]:
    """The classes of "clf" are the inputs: whose mean is nearest."""
    other = x.roll(1, 0)
    with torch.no_grad():
        means = vae.posterior(x)[0]

    def nearest(mean: Tensor) -> Tensor:
        return -(mean[:, None] - means).square().sum(2)

    return [
        *(partial(latent, divergence=name, init="geometric", **ball) for name in DIVERGENCES),
        partial(latent, alpha=ball["eps"] / 4, **ball),
        partial(latent, divergence="clf", classifier=nearest, **ball),
        partial(latent, target=other, **ball),
        *(
            partial(
                latent,
                preset=name,
                keep="best",
                target=other if name in TARGETED else None,
                **cube,
            )
            for name in PRESETS
        ),
    ]


def _adversarial(run: Callable[..., Any], vae: VAE, x: Tensor) -> Tensor:
    """The input itself where the attack failed."""
    moved: Tensor = run(vae, x).x_adv
    return torch.where(_usable(moved), moved, x)


def _searched(radius: float, settings: Settings, event: Event, vae: VAE, x: Tensor) -> Tensor:
    """Where the search broke the event within the radius; x elsewhere."""
    s = settings
    search: dict[str, Any] = {"restarts": s.restarts, "steps": s.attack_steps, "seed": s.seed}
    found = certify.empirical_margin(vae, x, s.r, r_max=radius, event=event, **search)
    return torch.where(_usable(found.x_adv), found.x_adv, x)


def _usable(x: Tensor) -> Tensor:
    """Rows that are finite, as [B, 1, ...]."""
    return x.isfinite().flatten(1).all(1).view(-1, *[1] * (x.ndim - 1))
