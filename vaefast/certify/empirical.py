"""An attack's upper bound on the margin: the smallest radius at which it breaks r-robustness."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from scipy import special
from torch import Tensor

from vaefast import checks
from vaefast.attacks.damage import Options, damage
from vaefast.certify.probability import Draws, check_draws
from vaefast.certify.sampling import at_input, count_hits
from vaefast.functional.rows import finite
from vaefast.models import VAE
from vaefast.models.context import Context
from vaefast.models.likelihoods import check_pixels
from vaefast.models.prepare import Prepared, prepare
from vaefast.philox import Use
from vaefast.runtime import batching
from vaefast.runtime.batching import Rows
from vaefast.runtime.grad_mode import without_grad

__all__ = ["EmpiricalMargin", "empirical_margin"]


@dataclass(frozen=True)
class EmpiricalMargin:
    """The smallest radius at which an attack was found that breaks r-robustness.

    Attributes:
        margin: [B] float64, upper estimate of the margin, ℓ2 in pixel scale; infinite where no
            break was found, NaN where the input is not finite.
        found: [B] bool.
        searched_to: [B] float64, the largest radius that was tried.
        x_adv: [B, *event], the input that broke, ‖x_adv − x‖₂ = margin (less where the box cut
            it); NaN where not found.
        reproducible: how far a row depends on the batch it stood in: ``"bits"``, ``"blocks"`` or
            ``"round-off"``, see :func:`vaefast.runtime.batching.reproducible`.
    """

    margin: Tensor
    found: Tensor
    searched_to: Tensor
    x_adv: Tensor
    reproducible: str = "round-off"


@without_grad
def empirical_margin(
    vae: VAE,
    x: Tensor,
    r: float | Tensor,
    *,
    r_max: float | Tensor | None = None,
    grid: int = 12,
    bisections: int = 4,
    restarts: int = 5,
    steps: int = 40,
    samples: int = 200,
    alpha: float = 1e-3,
    low: float | Tensor | None = None,
    high: float | Tensor | None = None,
    seed: int = 0,
    index: Tensor | None = None,
    context: Context = None,
    **attack: Any,
) -> EmpiricalMargin:
    """Search for the smallest perturbation after which r-robustness no longer holds.

    At radius R the maximum-damage attack runs from ``restarts`` starts, each perturbation is
    rescaled to ‖δ‖₂ = R, and P(‖g(μ(x+δ) + σ(x+δ)⊙η) − g(μ(x))‖₂ ≤ r) is estimated from S draws.
    The restart with the fewest hits is drawn again with fresh noise, and the input counts as broken
    at R when so few hits have a probability of at most ``alpha`` for P = ½. Radii r_max·k/grid,
    k = 0, 1, ..., are tried in ascending order until one breaks (k = 0 is the input itself);
    then the interval below it is bisected. P need not be monotone in R, so this is the smallest
    radius at which a break was found, not the smallest at which there is one.

    The draws are independent of the attack's and of those behind :func:`robust_probability`, and
    the same at all radii and restarts of an input, which are so compared under one noise.

    Args:
        vae: the VAE, in evaluation mode.
        x: [B, *event] inputs, float32 or float64.
        r: radius in output space, float or [B], ℓ2 over all entries, pixel scale.
        r_max: largest radius, float or [B], pixel scale; default √D/4.
        grid: number of radii above 0 in the first pass.
        bisections: halvings of the interval below the first break.
        restarts: starts of the attack at every radius, K.
        steps: gradient steps of each.
        samples: draws S behind each probability.
        alpha: error probability of calling an input broken at one radius that it withstands.
        low: smallest entry that a perturbed input may take; default that of ``vae.box``, else
            none, as in the definition of the margin. Perturbations are clipped after rescaling.
        high: largest entry, likewise.
        seed: seed of all random numbers.
        index: [B] int64, the global number of each input; default ``arange(B)``.
        context: conditions of each input, [B, ...] or a dict of such tensors.
        attack: further arguments of :func:`vaefast.attacks.max_damage`.

    Returns:
        :class:`EmpiricalMargin`.

    Raises:
        TypeError: half precision.
        ValueError: a wrong shape or option, ``r_max`` that is not finite.

    Source: mathematics.md 2.3, after Barrett, Camuto, Willetts, Rainforth, "Certifiably robust
    variational autoencoders", AISTATS 2022, whose code scans from the largest radius down, one
    input and one restart at a time, and returns the first radius that holds.
    """
    prepared = prepare(vae, x, index, context=context, half="refuse")
    x = prepared.x
    check_pixels(x, vae.likelihood)
    checks.count(bisections, "bisections", 0)
    checks.count(restarts, "restarts")
    r_max = 0.25 * math.sqrt(prepared.pixels) if r_max is None else r_max
    box = vae.box or (-math.inf, math.inf)
    low, high = box[0] if low is None else low, box[1] if high is None else high
    bounds = _Bounds(
        r=checks.per_row(r, "r", len(x), like=x, minimum=0.0),
        r_max=checks.per_row(r_max, "r_max", len(x), like=x, minimum=0.0).double(),
        low=checks.per_row(low, "low", len(x), like=x),
        high=checks.per_row(high, "high", len(x), like=x),
    )
    options = {"steps": steps, "restarts": restarts, "fresh_samples": 1, **attack}
    draws = check_draws(samples, alpha, seed)
    radii = checks.count(grid, "grid")
    if bounds.r_max.isinf().any():
        raise ValueError("r_max must be finite, got inf")
    checks.differentiable(vae)
    search = _Search(draws, options, prepared.maps.generic("mean", "std", "pixels"))

    def run(part: Prepared) -> tuple[Tensor, ...]:
        return search.run(part, bounds.take(part.gather), radii, bisections)

    cost = restarts * _bytes_per_candidate(prepared)
    margin, found, x_adv = prepared.rows(run, cost, generic=False)
    ops = ("net_forward", "net_vjp", "pgd_step")
    promise = batching.reproducible(search.generic, ops, x)
    searched_to = torch.where(found, margin, bounds.r_max)
    return EmpiricalMargin(margin, found, searched_to, x_adv, promise)


def _bytes_per_candidate(prepared: Prepared) -> int:
    parts = (prepared.maps.mean, prepared.maps.pixels)
    passes = sum(part.bytes_per_row(prepared.itemsize, 1) for part in parts)
    return passes + 64 * prepared.pixels


class _Bounds(NamedTuple):
    """What the caller asks of each input."""

    r: Tensor  # [b]
    r_max: Tensor  # [b] float64
    low: Tensor  # [b]
    high: Tensor  # [b]

    def take(self, rows: Rows) -> _Bounds:
        return _Bounds(*[t[rows] for t in self])


@dataclass
class _Bracket:
    """Per input: held at ``safe``, broke at ``broken`` (infinite where it never did)."""

    safe: Tensor  # [b] float64
    broken: Tensor  # [b] float64
    witness: Tensor  # [b, *event], the input that broke

    def update(self, rows: Tensor, radius: Tensor, broke: Tensor, x_adv: Tensor) -> None:
        """Record what happened to the inputs numbered ``rows`` at ``radius``, [len(rows)] each."""
        self.safe[rows[~broke]] = radius[~broke]
        self.broken[rows[broke]] = radius[broke]
        self.witness[rows[broke]] = x_adv[broke]


@dataclass(frozen=True)
class _Search:
    """How an input is attacked and its probability estimated."""

    draws: Draws
    attack: dict[str, Any]
    generic: bool  # some map is evaluated as a module

    def run(
        self, part: Prepared, bounds: _Bounds, grid: int, bisections: int
    ) -> tuple[Tensor, ...]:
        """(margin, found, witness) of some inputs."""
        good = finite(part.x, bounds.r, bounds.r_max)
        zero = torch.zeros_like(bounds.r_max)
        bracket = _Bracket(zero.clone(), zero + torch.inf, torch.full_like(part.x, torch.nan))
        for k in range(grid + 1):
            open_rows = (good & bracket.broken.isinf()).nonzero()[:, 0]
            self._attempt(part, bounds, bracket, open_rows, bounds.r_max * (k / grid))
        for _ in range(bisections):
            found = (bracket.broken.isfinite() & (bracket.broken > 0)).nonzero()[:, 0]
            self._attempt(part, bounds, bracket, found, 0.5 * (bracket.safe + bracket.broken))
        margin = torch.where(good, bracket.broken, torch.nan)
        return margin, bracket.broken.isfinite(), bracket.witness

    def _attempt(
        self, part: Prepared, bounds: _Bounds, bracket: _Bracket, rows: Tensor, radius: Tensor
    ) -> None:
        """Attack the inputs numbered ``rows`` at their radii and narrow their brackets."""
        if not len(rows):
            return
        own, bounds, radius = part.at(rows), bounds.take(rows), radius[rows]
        candidates = self._candidates(own, bounds, radius)  # [b, K, *event]
        best = self._hits(own, bounds.r, candidates, Use.MARGIN).argmin(1)
        x_adv = candidates[torch.arange(len(rows), device=rows.device), best]
        bracket.update(rows, radius, self._is_broken(own, bounds.r, x_adv), x_adv)

    def _is_broken(self, own: Prepared, r: Tensor, x_adv: Tensor) -> Tensor:
        """[b] bool, from draws that had no part in choosing ``x_adv``."""
        hits = self._hits(own, r, x_adv[:, None], Use.FRESH)[:, 0]
        # of at most so many hits at P = ½
        chance = special.bdtr(hits.cpu().numpy(), self.draws.samples, 0.5)
        return torch.from_numpy(chance <= self.draws.alpha).to(hits.device)

    def _candidates(self, own: Prepared, bounds: _Bounds, radius: Tensor) -> Tensor:
        """Perturbed inputs at distance ``radius`` exactly, one per restart, [b, K, *event]."""
        if not radius.any():
            return own.x[:, None]
        found = damage(own, own.x, self._options(bounds, radius))
        delta = (found.x_adv.double() - own.x[:, None].double()).flatten(2)
        length = torch.linalg.vector_norm(delta, dim=2, keepdim=True)
        scaled = delta * (radius.view(-1, 1, 1) / length.masked_fill(length == 0, 1.0))
        point = own.x[:, None] + scaled.view(found.x_adv.shape).to(own.x.dtype)
        box = (t.view(-1, *[1] * (point.ndim - 1)) for t in (bounds.low, bounds.high))
        return point.clamp(*box)

    def _options(self, bounds: _Bounds, radius: Tensor) -> Options:
        return Options.checked(
            seed=self.draws.seed,
            eps=radius,
            norm="l2",
            low=bounds.low,
            high=bounds.high,
            keep="all",
            **self.attack,
        )

    def _hits(self, own: Prepared, r: Tensor, candidates: Tensor, use: Use) -> Tensor:
        """Draws within r of g(μ(x)), [b, K]; all of them where a candidate is not finite."""
        restarts, (samples, _, seed) = candidates.shape[1], self.draws

        def run(part: Prepared) -> tuple[Tensor, ...]:
            points = candidates[part.gather].flatten(0, 1)
            centre = at_input(part.maps, part.x).centre
            moved = at_input(part.maps, points)
            hits = count_hits(
                part.maps,
                moved._replace(centre=centre.repeat_interleave(restarts, 0)),
                r[part.gather].repeat_interleave(restarts),
                seed=seed,
                index=part.index.repeat_interleave(restarts),
                samples=samples,
                use=use,
            )
            return (torch.where(finite(points), hits, samples).view(-1, restarts),)

        cost, width = restarts * _bytes_per_candidate(own), restarts * samples
        return own.rows(run, cost, width, generic=self.generic)[0]
