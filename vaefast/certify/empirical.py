"""An attack's upper bound on the margin: the smallest radius at which it breaks r-robustness."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from scipy import special
from torch import Tensor

from vaefast import checks
from vaefast.attacks.damage import Options, damage
from vaefast.attacks.result import NO_X, AttackResult, warn_of
from vaefast.certify.bracket import Bounds, Bracket
from vaefast.certify.events import Event, require_one_event
from vaefast.certify.probability import Draws, check_draws
from vaefast.certify.result import MarginResult
from vaefast.certify.sampling import at_input, count_hits, repeated_rows
from vaefast.functional.rows import finite
from vaefast.models import VAE
from vaefast.models.context import Context
from vaefast.models.likelihoods import check_pixels
from vaefast.models.prepare import Prepared, prepare
from vaefast.philox import Use
from vaefast.runtime import batching
from vaefast.runtime.grad_mode import without_grad
from vaefast.runtime.reasons import Reasons, reasons

__all__ = ["EmpiricalMargin", "empirical_margin"]

NO_GRADIENT = "no attack had a gradient, so only random perturbations were tried"


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
        nonfinite_gradients: [B] int64, gradients with an entry that was not finite and counted as
            0, over all attacks.
        reasons: of each row why it says nothing, "" where it does: the input is not finite, or no
            attack had a gradient and nothing was found.
        reproducible: how far a row depends on the batch it stood in: ``"bits"``, ``"blocks"`` or
            ``"round-off"``, see :func:`vaefast.runtime.batching.reproducible`.
        event: the :class:`Event` that broke.
        ratio: [B] float64, certified margin over this one, where ``certified`` was given: how much
            of what an attack leaves is certified. 0 where nothing is certified or was found.
    """

    margin: Tensor
    found: Tensor
    searched_to: Tensor
    x_adv: Tensor
    nonfinite_gradients: Tensor
    reasons: Reasons
    reproducible: str = "round-off"
    event: Event = Event.FIXED_CENTRE
    ratio: Tensor | None = None


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
    event: Event = Event.FIXED_CENTRE,
    certified: MarginResult | None = None,
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
        event: what must break: ``Event.FIXED_CENTRE``, or ``Event.TWO_DRAWS``, the event of
            ``margin(variant="barrett2022")``, where the reconstruction of x is drawn as well. The
            attack is that of the fixed centre in both.
        certified: margins of the same inputs, r and event, for ``ratio``.
        attack: further arguments of :func:`vaefast.attacks.max_damage`; with two restarts or more
            ``init`` is "geometric" by default, which finds smaller breaks than random starts alone.
            So does the default ``optimizer``, "apgd", whose steps adapt, where no preset is named.

    Returns:
        :class:`EmpiricalMargin`; one warning for what its ``reasons`` and counts say.

    Raises:
        TypeError: half precision.
        ValueError: a wrong shape or option, ``r_max`` that is not finite, ``certified`` of another
            event.

    Source: mathematics.md 2.3, after Barrett, Camuto, Willetts, Rainforth, "Certifiably robust
    variational autoencoders", AISTATS 2022, whose code scans from the largest radius down, one
    input and one restart at a time, and returns the first radius that holds.
    """
    prepared = prepare(vae, x, index, context=context, half="refuse")
    x = prepared.x
    check_pixels(x, vae.likelihood)
    checks.count(bisections, "bisections", 0)
    checks.count(restarts, "restarts")
    event = Event(checks.option(event, "event", tuple(map(str, Event))))
    if certified is not None:
        checks.shape(certified.margin, "certified.margin", [len(x)], "the rows of x")
        require_one_event(event=event, certified=certified.event)
    r_max = 0.25 * math.sqrt(prepared.pixels) if r_max is None else r_max
    box = vae.box or (-math.inf, math.inf)
    low, high = box[0] if low is None else low, box[1] if high is None else high
    bounds = Bounds(
        r=checks.per_row(r, "r", len(x), like=x, minimum=0.0),
        r_max=checks.per_row(r_max, "r_max", len(x), like=x, minimum=0.0).double(),
        low=checks.per_row(low, "low", len(x), like=x),
        high=checks.per_row(high, "high", len(x), like=x),
    )
    start = "geometric" if restarts > 1 else "random"
    options = {"steps": steps, "restarts": restarts, "fresh_samples": 1, "init": start, **attack}
    if not attack.keys() & {"optimizer", "preset", "compat"}:
        options["optimizer"] = "apgd"
    draws = check_draws(samples, alpha, seed)
    radii = checks.count(grid, "grid")
    if bounds.r_max.isinf().any():
        raise ValueError("r_max must be finite, got inf")
    checks.differentiable(vae)
    search = _Search(draws, options, prepared.maps.generic("mean", "std", "pixels"), event)

    def run(part: Prepared) -> tuple[Tensor, ...]:
        return search.run(part, bounds.take(part.gather), radii, bisections)

    cost = restarts * _bytes_per_candidate(prepared)
    margin, found, x_adv, nonfinite, still = prepared.rows(run, cost, generic=False)
    ops = ("net_forward", "net_vjp", "pgd_step")
    promise = batching.reproducible(search.generic, ops, x)
    searched_to = torch.where(found, margin, bounds.r_max)
    why = reasons(len(x), {NO_X: margin.isnan(), NO_GRADIENT: still})
    ratio = None if certified is None else certified.margin.to(margin) / margin
    result = EmpiricalMargin(
        margin, found, searched_to, x_adv, nonfinite, why, promise, event, ratio
    )
    warn_of(result, "empirical_margin")
    return result


def _bytes_per_candidate(prepared: Prepared) -> int:
    parts = (prepared.maps.mean, prepared.maps.pixels)
    passes = sum(part.bytes_per_row(prepared.itemsize, 1) for part in parts)
    return passes + 64 * prepared.pixels


@dataclass(frozen=True)
class _Search:
    """How an input is attacked and its probability estimated."""

    draws: Draws
    attack: dict[str, Any]
    generic: bool  # some map is evaluated as a module
    event: Event

    def run(self, part: Prepared, bounds: Bounds, grid: int, bisections: int) -> tuple[Tensor, ...]:
        """(margin, found, witness) of some inputs."""
        good = finite(part.x, bounds.r, bounds.r_max)
        zero = torch.zeros_like(bounds.r_max)
        bracket = Bracket(
            zero.clone(),
            zero + torch.inf,
            torch.full_like(part.x, torch.nan),
            torch.zeros_like(zero, dtype=torch.int64),
            bounds.r_max <= 0,  # where nothing is attacked, nothing is missing
        )
        for k in range(grid + 1):
            open_rows = (good & bracket.broken.isinf()).nonzero()[:, 0]
            self._attempt(part, bounds, bracket, open_rows, bounds.r_max * (k / grid))
        for _ in range(bisections):
            found = (bracket.broken.isfinite() & (bracket.broken > 0)).nonzero()[:, 0]
            self._attempt(part, bounds, bracket, found, 0.5 * (bracket.safe + bracket.broken))
        margin = torch.where(good, bracket.broken, torch.nan)
        found = bracket.broken.isfinite()
        still = good & ~found & ~bracket.usable
        return margin, found, bracket.witness, bracket.nonfinite, still

    def _attempt(
        self, part: Prepared, bounds: Bounds, bracket: Bracket, rows: Tensor, radius: Tensor
    ) -> None:
        """Attack the inputs numbered ``rows`` at their radii and narrow their brackets."""
        if not len(rows):
            return
        own, bounds, radius = part.at(rows), bounds.take(rows), radius[rows]
        candidates, found = self._candidates(own, bounds, radius)  # [b, K, *event]
        bracket.count(rows, found)
        best = self._hits(own, bounds.r, candidates, Use.MARGIN).argmin(1)
        x_adv = candidates[torch.arange(len(rows), device=rows.device), best]
        bracket.update(rows, radius, self._is_broken(own, bounds.r, x_adv), x_adv)

    def _is_broken(self, own: Prepared, r: Tensor, x_adv: Tensor) -> Tensor:
        """[b] bool, from draws that had no part in choosing ``x_adv``."""
        hits = self._hits(own, r, x_adv[:, None], Use.FRESH)[:, 0]
        # of at most so many hits at P = ½
        chance = special.bdtr(hits.cpu().numpy(), self.draws.samples, 0.5)
        return torch.from_numpy(chance <= self.draws.alpha).to(hits.device)

    def _candidates(
        self, own: Prepared, bounds: Bounds, radius: Tensor
    ) -> tuple[Tensor, AttackResult | None]:
        """Perturbed inputs at distance ``radius``, [b, K, *event], and the attack behind them."""
        if not radius.any():
            return own.x[:, None], None
        found = damage(own, own.x, self._options(bounds, radius))
        delta = (found.x_adv.double() - own.x[:, None].double()).flatten(2)
        length = torch.linalg.vector_norm(delta, dim=2, keepdim=True)
        scaled = delta * (radius.view(-1, 1, 1) / length.masked_fill(length == 0, 1.0))
        point = own.x[:, None] + scaled.view(found.x_adv.shape).to(own.x.dtype)
        box = (t.view(-1, *[1] * (point.ndim - 1)) for t in (bounds.low, bounds.high))
        return point.clamp(*box), found

    def _options(self, bounds: Bounds, radius: Tensor) -> Options:
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
            own = repeated_rows(at_input(part.maps, part.x), restarts)
            moved = at_input(part.maps, points)._replace(centre=own.centre)
            hits = count_hits(
                part.maps,
                moved,
                r[part.gather].repeat_interleave(restarts),
                seed=seed,
                index=part.index.repeat_interleave(restarts),
                samples=samples,
                use=use,
                other=own if self.event is Event.TWO_DRAWS else None,
            )
            return (torch.where(finite(points), hits, samples).view(-1, restarts),)

        cost, width = restarts * _bytes_per_candidate(own), restarts * samples
        return own.rows(run, cost, width, generic=self.generic)[0]
