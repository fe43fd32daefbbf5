"""Robustness that is specified before training: constants and a ball of σ that guarantee it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from vaefast import checks
from vaefast.certify.events import Event
from vaefast.certify.theorems import HALF, Setting, largest_shift, misses
from vaefast.models.lipschitz import Constants, LipschitzVAE, lipschitz_constants

__all__ = ["asked_for", "choose", "promised"]

SLACK = 1e-4  # by which weights in float32 may exceed a constant while they train
NOISE = 0.25  # of r/a is the ball of σ where constants are chosen with it: a quarter of r²/2
RATIO = 4.0  # b/a where both are chosen, as in the published networks
NARROW = 1e-3  # σ of each latent below which a ball is no longer taken
RANGE = 1e6  # constants that are chosen lie between its inverse and it
HALVINGS = 80


@contextmanager
def promised(
    vae: object, x: Tensor, certified_radius: float | None, r: float | None
) -> Iterator[None]:
    """Choose constants before the block; after it make the weights keep to them, and check that.

    Raises:
        TypeError: not a :class:`LipschitzVAE`.
        ValueError: only one of the two is given, or what is asked for cannot be had.
        RuntimeError: the trained weights do not keep the promise.
    """
    if certified_radius is None and r is None:
        yield
        return
    model, radius, r = _checked(vae, certified_radius, r)
    chosen = choose(model, radius, r)
    model.set_constants(**{name: getattr(chosen, name) for name in model.free})
    if chosen.a * chosen.b < 1.0:
        warnings.warn(
            f"a certified radius of {radius:g} at r = {r:g} needs a·b = {chosen.a * chosen.b:.3g}: "
            "reconstructions differ by that share of what inputs differ by, at most",
            stacklevel=4,
        )
    yield
    model.eval()  # the caller sets the modes back
    _keep(model.project_(), x, radius, r)


def asked_for(vae: object, certified_radius: float | None, r: float | None) -> dict[str, object]:
    """What a checkpoint holds a run to: the radii, and the constants that were given."""
    given: dict[str, object] = {"certified_radius": certified_radius, "r": r}
    if isinstance(vae, LipschitzVAE):
        kept = vae.constants._asdict()
        given |= {name: value for name, value in kept.items() if name not in vae.free}
    return given


def choose(vae: LipschitzVAE, radius: float, r: float) -> Constants:
    """The largest constants and ball of σ that guarantee ``radius`` at ``r`` for every input.

    What was given to the model stays; what is in ``vae.free`` is chosen: first a and b (with b = 4a
    where both are), leaving a quarter of r²/2 to σ, then the largest ball. The guarantee is that of
    Theorem 2, of Theorem 3 where σ is fixed, in the forms T1 to T3: of two independent draws, and
    so of the fixed centre too. Where σ is in a ball c does not matter.

    Args:
        radius: ‖δ‖₂ that is to be withstood, pixel scale.
        r: radius in output space.

    Returns:
        :class:`Constants`, with the ball in ``std_norm``.

    Raises:
        ValueError: the constants that were given cannot guarantee it; with the best that they can.

    Source: Barrett et al. 2022, mathematics.md 4.2 to 4.4.
    """
    kept, free, latents = vae.constants, vae.free, vae.latent_dim
    assert latents is not None
    isotropic = vae.fixed_std
    narrow = NARROW * math.sqrt(latents)

    def holds(own: Constants) -> bool:
        at = _anywhere(own, r, latents, isotropic)
        d = torch.full((1, 1), radius, dtype=torch.float64, device="cpu")
        return min(float(p) for p in misses(at, Event.TWO_DRAWS, d).values()) < HALF

    def scaled(size: float) -> Constants:
        a = size / math.sqrt(RATIO) if "a" in free else kept.a
        b = size * (math.sqrt(RATIO) if "a" in free else 1.0) if "b" in free else kept.b
        return kept._replace(a=a, b=b, std_norm=NOISE * r / a if ball else kept.std_norm)

    ball = "std_norm" in free
    best = kept
    if {"a", "b"} & {*free}:
        best = scaled(_largest(lambda size: holds(scaled(size)), 1.0 / RANGE, RANGE))
    if ball:
        own = best
        norm = _largest(lambda t: holds(own._replace(std_norm=t)), narrow, math.sqrt(latents))
        best = own._replace(std_norm=norm)
    if not holds(best):
        raise ValueError(_refusal(best, free, radius, r, latents, isotropic))
    return best


def _checked(
    vae: object, radius: float | None, r: float | None
) -> tuple[LipschitzVAE, float, float]:
    if radius is None or r is None:
        missing = "r" if r is None else "certified_radius"
        raise ValueError(f"certified_radius and r go together; pass {missing} too")
    for name, value in (("certified_radius", radius), ("r", r)):
        if not 0.0 < checks.number(value, name) < math.inf:
            raise ValueError(f"{name} must be positive and finite, got {value:g}")
    if not isinstance(vae, LipschitzVAE):
        raise TypeError(
            f"certified_radius needs a vaefast.models.LipschitzVAE, got {type(vae).__name__}"
        )
    return vae, float(radius), float(r)


def _anywhere(own: Constants, r: float, latents: int, isotropic: bool) -> Setting:
    """Any input at all: ‖σ‖₂ is at its bound there, and remains so."""
    own = Constants(*(value * (1.0 + SLACK) for value in own))._replace(c=0.0)
    norm = torch.full((1,), own.std_norm, dtype=torch.float64, device="cpu")
    largest = norm / math.sqrt(latents) if isotropic else norm
    return Setting(own, norm, largest, torch.full_like(norm, r), latents, isotropic)


def _margin(own: Constants, r: float, latents: int, isotropic: bool) -> float:
    at = _anywhere(own, r, latents, isotropic)
    return max(float(shift) for shift in largest_shift(at, Event.TWO_DRAWS).values())


def _largest(fits: Callable[[float], bool], low: float, high: float) -> float:
    """The largest value that fits, where all below it do; ``low`` where none does."""
    if fits(high):
        return high
    for _ in range(HALVINGS):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _refusal(
    own: Constants, free: tuple[str, ...], radius: float, r: float, latents: int, isotropic: bool
) -> str:
    names = [name for name in ("a", "b", "std_norm") if name not in free]
    given = ", ".join(f"{name} = {getattr(own, name):.4g}" for name in names)
    best = _margin(own, r, latents, isotropic)
    return (
        f"certified_radius {radius:g} cannot be had with {given} at r = {r:g}: the best is "
        f"{math.floor(best * 1e4) / 1e4:g}; ask for that, for a larger r, or leave one of them None"
    )


def _keep(vae: LipschitzVAE, x: Tensor, radius: float, r: float) -> None:
    """The constants that the weights have guarantee the radius."""
    own = lipschitz_constants(vae, x[:1])
    latents = vae.latent_dim
    assert latents is not None
    own = Constants(*(value / (1.0 + SLACK) for value in own))
    found = _margin(own, r, latents, vae.fixed_std)
    if found < radius * (1.0 - 1e-8):
        raise RuntimeError(
            f"the trained weights guarantee a radius of {found:.4g}, not of {radius:g}; "
            "vae.export() keeps to the constants that were chosen"
        )
