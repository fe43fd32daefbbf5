"""Bounds of the probability that a reconstruction leaves r, from Lipschitz constants alone.

Each is a function of how far the input has moved, d = ‖δ‖₂, and never falls as d grows. So the
largest d at which one is below ½ is a margin, found by bisection.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy import special
from torch import Tensor

from vaefast.certify.events import Event
from vaefast.models.lipschitz import Constants

__all__ = ["BOUNDS", "VARIANTS", "Setting", "largest_shift", "misses"]

HALF = 0.5 - 1e-9  # a probability of exactly ½ is no majority, and special functions round
SMALLEST = 1e-12  # constants below it are taken for it, so that r/(ab) is finite
HALVINGS = 120


@dataclass(frozen=True)
class Setting:
    """Inputs of which the encoder's width is known, and the maps' constants.

    Args:
        constants: of the maps; ``std_norm`` bounds ‖σ(x')‖₂ at every x'.
        norm: s [B] float64, at least ‖σ(x)‖₂.
        largest: S [B] float64, at least max_i σ_i(x).
        r: [B] float64.
        latents: m.
        isotropic: whether σ is fixed and the same for all latents.
    """

    constants: Constants
    norm: Tensor
    largest: Tensor
    r: Tensor
    latents: int
    isotropic: bool = False

    def moved(self, start: Tensor, d: Tensor) -> Tensor:
        """``start`` + c·d, at most the bound of ‖σ‖₂ anywhere; [B, K] for d [B, K]."""
        bound = start[:, None] + self.constants.c * d
        return bound.clamp(max=self.constants.std_norm)

    def squared(self, length: Tensor) -> Tensor:
        """(a·length/r)², length [B, K] in the latent space."""
        return (self.constants.a * length / self.r[:, None]).square()

    def room(self, d: Tensor) -> Tensor:
        """r/a − b·d, at least 0: what is left for the noise."""
        own = self.constants
        return (self.r[:, None] / max(own.a, SMALLEST) - own.b * d).clamp(min=0.0)


Bound = Callable[[Setting, Tensor], Tensor]  # d [B, K] -> P(miss) ≤ [B, K]


def variance(at: Setting, d: Tensor) -> Tensor:
    """a²[b²d² + (s + cd)²]/r²: Markov's inequality for ‖z_δ − μ(x)‖²."""
    return at.squared(torch.hypot(at.constants.b * d, at.moved(at.norm, d)))


def tail(at: Setting, d: Tensor) -> Tensor:
    """P(χ²_m > (r/a − bd)²/(S + cd)²): the noise alone must fill what the mean leaves."""
    return _chi_square(at, at.room(d), at.moved(at.largest, d))


def isotropic(at: Setting, d: Tensor) -> Tensor:
    """P(χ'²_m((bd)²/γ²) > (r/a)²/γ²), exact in a and b where σ is γ everywhere."""
    return _non_central(at, d, at.largest[:, None])


def published_variance(at: Setting, d: Tensor) -> Tensor:
    """Theorem 1's p₁ = a²[b²d² + (cd + 2s)²]/r²."""
    own = at.constants
    return at.squared(torch.hypot(own.b * d, own.c * d + 2.0 * at.norm[:, None]))


def published_tail(at: Setting, d: Tensor) -> Tensor:
    """Theorem 1's p₂ = C(m)·u^{m/2}e^{−u/2}/(u − m + 2), u = (r/a − bd)²/(cd + 2s)²."""
    m = at.latents
    u = (at.room(d) / (at.constants.c * d + 2.0 * at.norm[:, None])).square()
    if m < 2:
        return torch.ones_like(u)
    log_c = 0.5 * (m - (m - 1) * math.log(m)) - 0.5 * math.log(math.pi)
    excess = (u - m + 2).clamp(min=0.0)
    log_p = log_c + 0.5 * m * u.log() - 0.5 * u - excess.log()
    return torch.where(excess > 0, log_p.exp(), 1.0)


def both_variances(at: Setting, d: Tensor) -> Tensor:
    """T1: a²[b²d² + (s + cd)² + s²]/r²."""
    noise = torch.hypot(at.moved(at.norm, d), at.norm[:, None])
    return at.squared(torch.hypot(at.constants.b * d, noise))


def both_tails(at: Setting, d: Tensor) -> Tensor:
    """T2: P(χ²_m > (r/a − bd)²/v), v = (S + cd)² + S²."""
    return _chi_square(at, at.room(d), torch.hypot(at.moved(at.largest, d), at.largest[:, None]))


def both_isotropic(at: Setting, d: Tensor) -> Tensor:
    """T3: P(χ'²_m((bd)²/2γ²) > (r/a)²/2γ²)."""
    return _non_central(at, d, math.sqrt(2.0) * at.largest[:, None])


BOUNDS: dict[Event, dict[str, Bound]] = {
    Event.FIXED_CENTRE: {"variance": variance, "tail": tail, "isotropic": isotropic},
    Event.TWO_DRAWS: {
        "theorem 2, m1": published_variance,
        "theorem 2, m2": published_tail,
        "T1": both_variances,
        "T2": both_tails,
        "T3": both_isotropic,
    },
}
VARIANTS = {None: Event.FIXED_CENTRE, "barrett2022": Event.TWO_DRAWS}
ISOTROPIC = ("isotropic", "T3")


def misses(at: Setting, event: Event, d: Tensor) -> dict[str, Tensor]:
    """P(the event does not happen) after a move of at most d [B, K], by each bound, [B, K]."""
    found = {}
    for name, bound in BOUNDS[event].items():
        if at.isotropic or name not in ISOTROPIC:
            found[name] = bound(at, d).nan_to_num(1.0, 1.0, 1.0).clamp(0.0, 1.0)
    return found


def largest_shift(at: Setting, event: Event) -> dict[str, Tensor]:
    """By each bound the largest d, a little shortened, at which it is below ½; [B] float64."""
    names = list(misses(at, event, torch.zeros_like(at.r)[:, None]))
    return {name: _bisected(at, BOUNDS[event][name]) for name in names}


def _bisected(at: Setting, bound: Bound) -> Tensor:
    own = at.constants
    high = (at.r / (max(own.a, SMALLEST) * max(own.b, SMALLEST)))[:, None]
    low = torch.zeros_like(high)
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        fits = bound(at, middle) < HALF
        low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
    return low[:, 0] * (1.0 - 1e-9)


def _chi_square(at: Setting, room: Tensor, std: Tensor) -> Tensor:
    u = (room / std).square()
    return _of_numpy(special.chdtrc(float(at.latents), u.cpu().numpy()), u)


def _non_central(at: Setting, d: Tensor, std: Tensor) -> Tensor:
    own, m = at.constants, float(at.latents)
    x = (at.r[:, None] / max(own.a, SMALLEST) / std).square().expand_as(d)
    shift = (own.b * d / std).square()
    return 1.0 - _of_numpy(special.chndtr(x.cpu().numpy(), m, shift.cpu().numpy()), d)


def _of_numpy(value: object, like: Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=like.dtype, device=like.device)
