"""Center smoothing, and plain smoothing of the event: certificates of a noised model.

Let f be a map to images, random or not, and n ~ N(0, σ²I). Center smoothing replaces f by f̂(x), the
centre of a ball that holds about half of the mass of f(x + n) and whose radius is at most β = 2
times the smallest such one. If the ball of radius r/(1 + β) about f̂(x) holds a mass of at least p
at x, it holds more than ½ + Δ at every x' with

    ‖x' − x‖₂ ≤ σ (Φ⁻¹(p) − Φ⁻¹(½ + Δ)),

so the ball about f̂(x') is no wider than βr/(1 + β), the two meet, and ‖f̂(x') − f̂(x)‖₂ ≤ r. Of f̂(x')
this asks that the procedure is run at x' as well, and does not fail there.

Smoothing of the event keeps our question and noises the model instead: the majority of the draws
g(μ(x' + n) + σ_q(x' + n)⊙η) is within r of g(μ(x)) for all ‖x' − x‖₂ ≤ σ Φ⁻¹(p).

Source: Kumar, Goldstein, "Center smoothing: certified robustness for networks with structured
outputs", NeurIPS 2021. Ours takes Clopper's and Pearson's bounds for Hoeffding's, which only
helps; the average of the draws is one more candidate for a centre, which makes no ball wider.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from scipy import special
from torch import Tensor

import vaefast as vf
from vaefast.certify.probability import lower_bound

__all__ = ["CenterSmoothing", "Draw", "ball", "reconstructions", "smoothed_distances"]

BETA = 2.0  # of the median over candidates that are draws
SURPLUS = 0.04  # Δ; below it the median of 10,000 draws is too uncertain
CANDIDATES = 30  # one of them lies in the smallest ball but for 2⁻³⁰
PILOT, CENTRING = 1_000, 10_000
CHUNK = 2_000

Draw = Callable[[Tensor, torch.Generator], Tensor]


def reconstructions(vae: vf.VAE, *, posterior: bool) -> Draw:
    """f: rows [n, *event] to images [n, D], g(μ(x)) or, with ``posterior``, g of a draw of q."""

    @torch.no_grad()
    def draw(x: Tensor, generator: torch.Generator) -> Tensor:
        z, std = vae.posterior(x)
        if posterior:
            z = z + std * torch.randn(
                z.shape, generator=generator, dtype=z.dtype, device=generator.device
            )
        return vae.g(z).flatten(1)

    return draw


def smoothed_distances(
    draw: Draw, x: Tensor, centres: Tensor, sigma: float, n: int, generator: torch.Generator
) -> Tensor:
    """‖f(x + n_s) − c‖₂ for n draws and each centre [C, D]: [n, C]."""
    found = []
    for images in _draws(draw, x, sigma, n, generator):
        found.append(torch.cdist(images, centres, compute_mode="donot_use_mm_for_euclid_dist"))
    return torch.cat(found)


def _draws(
    draw: Draw, x: Tensor, sigma: float, n: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """f(x + n_s), in chunks [·, D]; x [1, *event]."""
    for at in range(0, n, CHUNK):
        shape = (min(CHUNK, n - at), *x.shape[1:])
        noise = torch.randn(shape, generator=generator, dtype=x.dtype, device=generator.device)
        yield draw(x + sigma * noise, generator)


@dataclass(frozen=True)
class CenterSmoothing:
    """The smoothed function f̂ and its certificate.

    Args:
        draw: f.
        sigma: of the input's noise, pixel scale; the same for all inputs.
        alpha: error probability of a statement about a pair x, x': a quarter each for the balls at
            x' (their width, their mass), the rest for the mass at x.
    """

    draw: Draw
    sigma: float
    alpha: float

    def centre(self, x: Tensor, generator: torch.Generator) -> Tensor | None:
        """f̂(x) [1, D], of x [1, *event]; None where the procedure abstains."""
        pilot = torch.cat(list(_draws(self.draw, x, self.sigma, PILOT, generator)))
        candidates = torch.cat([pilot[:CANDIDATES], pilot.mean(0, keepdim=True)])
        drawn = smoothed_distances(self.draw, x, candidates, self.sigma, CENTRING, generator)
        radius, best = drawn.median(0).values.min(0)
        centre = candidates[best][None]
        again = smoothed_distances(self.draw, x, centre, self.sigma, CENTRING, generator)
        hits = (again <= radius).sum()
        mass = float(lower_bound(hits[None], CENTRING, 0.25 * self.alpha))
        # at another point: of a ball that holds more than ½ + Δ fewer than half of the draws
        few = special.bdtr(CENTRING // 2, CENTRING, 0.5 + SURPLUS) + 2.0**-CANDIDATES
        return centre if mass > 0.5 - SURPLUS and few <= 0.25 * self.alpha else None

    def guess(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """About f̂(x) [1, D], for a twentieth of the passes; no certificate holds of it."""
        drawn = torch.cat(list(_draws(self.draw, x, self.sigma, PILOT, generator)))
        return drawn.mean(0, keepdim=True)

    def radius(self, distances: Tensor, r: float) -> float:
        """Certified, from distances [n] of fresh draws at x to f̂(x); 0 where none is."""
        hits = int((distances <= r / (1.0 + BETA)).sum())
        return ball(self.sigma, hits, len(distances), 0.5 * self.alpha, 0.5 + SURPLUS)

    @staticmethod
    def passes(draws: int) -> int:
        """Of the network, per input and at each of x and x'; ``draws`` at x alone."""
        return PILOT + 2 * CENTRING + draws


def ball(sigma: float, hits: int, n: int, alpha: float, needed: float) -> float:
    """σ (Φ⁻¹(p) − Φ⁻¹(needed)), at least 0, with p from hits of n."""
    p = float(lower_bound(torch.tensor([hits], dtype=torch.int64, device="cpu"), n, alpha))
    return sigma * float(special.ndtri(p) - special.ndtri(needed)) if p > needed else 0.0
