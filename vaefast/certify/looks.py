"""How many draws a certificate rests on: more of them while they pay, with one confidence.

The probability p_lower caps every margin, and more draws raise it. At sizes S₁ < ... < S_J that are
fixed before the first draw the hits of the first S_j draws give a bound at level α_j, Σ α_j = α. By
the union bound all J hold at once with probability at least 1 − α, whatever the draws say; so
stopping at any of them, for any reason, and taking the largest seen so far costs nothing more.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vaefast import checks
from vaefast.certify.probability import count, lower_bound
from vaefast.functional.rows import finite
from vaefast.models.prepare import Prepared
from vaefast.types import Layer

__all__ = ["Budget", "Evidence", "Look", "flop_per_draw", "gather_evidence", "plan"]

FIRST = 1000
GAIN = 1.01  # of q = Φ⁻¹(p_lower) by the last doubling; the margin grows with it
HOPELESS = 4.0  # standard errors below ½ at which an input is given up


@dataclass(frozen=True)
class Budget:
    """The most that one input's draws may cost.

    Attributes:
        samples: draws.
        flop: of the decoder's passes; a decoder of 10 MFLOP gets 5,000 draws of the default.
        seconds: for all inputs together, looked at between sizes, of anchors before an input's
            draws begin; None for no limit. With one the result depends on the machine's speed; its
            confidence does not, as no draw decides what the clock does.
    """

    samples: int = 50_000
    flop: float = 5e10
    seconds: float | None = None

    def __post_init__(self) -> None:
        checks.count(self.samples, "budget.samples")
        if not checks.number(self.flop, "budget.flop") > 0:
            raise ValueError(f"budget.flop must be positive, got {self.flop:g}")
        if self.seconds is not None and not checks.number(self.seconds, "budget.seconds") > 0:
            raise ValueError(f"budget.seconds must be positive or None, got {self.seconds:g}")


class Look(NamedTuple):
    """Draws after which p_lower is bounded, and with which error probability."""

    samples: int
    alpha: float


class Evidence(NamedTuple):
    """What is known of P(‖Δ‖ ≤ r) at each input.

    Args:
        p_lower: [B] float64, at most P with probability 1 − α per input; NaN where not finite.
        samples: [B] int64, draws that were made.
    """

    p_lower: Tensor
    samples: Tensor


def plan(samples: int | str, alpha: float, budget: Budget, flop_per_draw: float) -> list[Look]:
    """The looks: one at a number, or ("auto") doublings from 1,000 to what the budget allows.

    The last has half of α, as most inputs whose draws pay go there; the others share the rest.
    """
    if not isinstance(samples, str):
        return [Look(checks.count(samples, "samples"), alpha)]
    most = max(1, min(budget.samples, int(budget.flop / max(flop_per_draw, 1.0))))
    sizes = [min(FIRST, most)]
    while sizes[-1] < most:
        sizes.append(min(2 * sizes[-1], most))
    if len(sizes) > 2 and sizes[-1] < 1.5 * sizes[-2]:
        del sizes[-2]  # no look for a few more draws
    early = 0.5 * alpha / max(len(sizes) - 1, 1)
    levels = [early] * (len(sizes) - 1) + [alpha if len(sizes) == 1 else 0.5 * alpha]
    return [Look(*pair) for pair in zip(sizes, levels, strict=True)]


def flop_per_draw(prepared: Prepared) -> float:
    """Of one pass of the decoder, for one latent."""
    pixels = prepared.maps.pixels
    if pixels.lowered is not None:
        return 2.0 * sum(map(_products, pixels.lowered.parsed(), pixels.lowered.weights))
    if not len(prepared.x):
        return 1.0
    mean = prepared.maps.encode_by_module(prepared.x[:1])[0]
    with FlopCounterMode(display=False) as counter:
        pixels.value(mean)
    return float(counter.get_total_flops())


def _products(layer: Layer, weight: Tensor) -> int:
    """Multiplications of a layer: each weight once per place of the side that it is written for."""
    places = layer.in_shape if layer.kind == "conv_transpose" else layer.out_shape
    return weight.numel() * math.prod(places[1:])


def gather_evidence(
    prepared: Prepared,
    r: Tensor,
    looks: list[Look],
    seed: int,
    precision: str = "ieee",
    seconds: float | None = None,
) -> Evidence:
    """Draw until more draws do not pay, each input on its own.

    An input is left alone when the last doubling raised q = Φ⁻¹(p_lower) by less than 1 %, or when
    its hits leave no hope of p > ½.

    Args:
        prepared: the rows [B].
        r: [B].
        looks: as :func:`plan` gives them.
        seed: of the draws, which are those of :func:`robust_probability`.
        precision: likewise.
        seconds: after which no further look begins.
    """
    start, before = time.monotonic(), 0
    open_rows = finite(prepared.x, r)
    p_lower = torch.where(open_rows, 0.0, torch.nan).double()
    found, used = torch.zeros_like(prepared.index), torch.zeros_like(prepared.index)
    for size, alpha in looks:
        rows = open_rows.nonzero()[:, 0]
        if not len(rows) or (before and seconds and time.monotonic() - start > seconds):
            break
        k = found[rows] + count(prepared.at(rows), r[rows], seed, range(before, size), precision)
        bound = torch.maximum(p_lower[rows], lower_bound(k, size, alpha))
        hopeless = k < 0.5 * (size - HOPELESS * math.sqrt(size))
        open_rows[rows] = ~hopeless & _paid(p_lower[rows], bound)
        found[rows], used[rows], p_lower[rows] = k, size, bound
        before = size
    return Evidence(p_lower, used)


def _paid(before: Tensor, after: Tensor) -> Tensor:
    """Whether a doubling raised the quantile by 1 % or more, or there was none yet."""
    old, new = torch.special.ndtri(before), torch.special.ndtri(after)
    return (old <= 0) | (new > GAIN * old)
