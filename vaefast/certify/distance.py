"""How far a reconstruction can be moved by any perturbation of a given length, certified."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vaefast import checks
from vaefast.certify.events import Event
from vaefast.certify.guarantee import Guarantee
from vaefast.certify.level import Over, inputs_of
from vaefast.certify.local import bounds_repeat, moved, require_local
from vaefast.certify.probability import check_draws, drawn_promise, lower_bound
from vaefast.certify.sampling import at_input, distances
from vaefast.certify.tolerance import required_probability
from vaefast.functional.displacement import FORMS
from vaefast.functional.rows import finite
from vaefast.models import VAE
from vaefast.models.context import Context
from vaefast.models.likelihoods import check_pixels
from vaefast.models.prepare import Prepared, prepare
from vaefast.runtime import batching, numerics
from vaefast.runtime.grad_mode import without_grad
from vaefast.runtime.reasons import Reasons, reasons

__all__ = ["CertifiedDistance", "distance"]

TOO_FAR = "the ball moves the posterior too far for any probability that draws could show"
BAD_INPUT = "x or radius is not finite"
BAD_DRAW = "the drawn reconstruction of that rank is not finite"
TOO_FEW = "too few draws: even if all stayed near, they would not show the probability needed"


@dataclass(frozen=True)
class CertifiedDistance:
    """The smallest r that is certified at a given radius.

    Attributes:
        distance: [B] float64, ℓ2 in pixel scale; infinite where abstained, NaN where the input is
            not finite.
        radius: [B] float64, of the ball of perturbations.
        p_required: [B] float64, the probability at x that the ball's displacement asks for.
        rank: [B] int64, k: ``distance`` is the k-th smallest of the drawn distances; 0 where
            abstained. It was fixed before the draws.
        samples: draws per input.
        samples_required: [B] int64, the fewest draws with which the row need not abstain.
        alpha: error probability, per input or of all that share it, see ``over``.
        abstain: [B] bool.
        reasons: why each row abstained, "" where it did not.
        guarantee: a :class:`Guarantee`.
        reproducible: how far a row depends on the batch it stood in.
        event: the :class:`Event`.
        over: how many inputs share ``alpha``; 1: each has its own.
    """

    distance: Tensor
    radius: Tensor
    p_required: Tensor
    rank: Tensor
    samples: int
    samples_required: Tensor
    alpha: float
    abstain: Tensor
    reasons: Reasons
    guarantee: Guarantee = Guarantee.LOCAL
    reproducible: str = "round-off"
    event: Event = Event.FIXED_CENTRE
    over: int = 1


@without_grad
def distance(
    vae: VAE,
    x: Tensor,
    radius: float | Tensor,
    *,
    samples: int = 2000,
    alpha: float = 1e-3,
    seed: int = 0,
    index: Tensor | None = None,
    context: Context = None,
    form: str = "smaller",
    over: Over = "input",
) -> CertifiedDistance:
    """The smallest r such that a margin of ``radius`` is certified: for users who do not fix r.

    For every x' with ‖x' − x‖₂ ≤ radius, g(μ(x') + σ(x')⊙η) is within ``distance`` of g(μ(x)) with
    probability above ½, with confidence 1 − alpha per input. The encoder alone says which
    probability p at x this takes; then k is the least rank with BetaInv(alpha; k, S − k + 1) ≥ p,
    and the distance the k-th smallest of S draws, a distribution-free tolerance bound. A
    :func:`margin` at this r takes another seed: r depends on these draws.

    Args:
        vae: the VAE, in evaluation mode, its encoder one that lowers.
        x: [B, *event] inputs, float32 or float64.
        radius: of the perturbations, float or [B], ℓ2 in pixel scale, at least 0 and finite.
        samples: draws S per input. Tip: ``samples_required`` says how many a row would take.
        alpha: error probability, in (0, 1), per input or as ``over`` says.
        seed: seed of the draws, which are those of :func:`robust_probability`.
        index: [B] int64, the global number of each input; default ``arange(B)``.
        context: conditions of each input, [B, ...] or a dict of such tensors.
        form: of the encoder's bound, as in :func:`margin`.
        over: whose alpha is, as in :func:`margin`: "input", "run", or the number of a run's inputs.

    Returns:
        :class:`CertifiedDistance`.

    Raises:
        TypeError: half precision.
        ValueError: a wrong shape or option, an encoder that does not lower, pixels outside [0, 1]
            unless the likelihood is Gaussian.

    Source: mathematics.md 8.1 to 8.3.
    """
    draws = check_draws(samples, alpha, seed)
    checks.option(form, "form", FORMS)
    prepared = prepare(vae, x, index, context=context, half="refuse")
    check_pixels(prepared.x, vae.likelihood)
    require_local(prepared, "distance")
    ball = checks.per_row(radius, "radius", len(x), like=prepared.x, minimum=0.0).double()
    if bool((ball == torch.inf).any()):
        raise ValueError("radius must be finite, got inf")
    p = required_probability(*moved(prepared, ball, form))
    shared = inputs_of(over, len(x))
    level = alpha / shared
    levels = lower_bound(torch.arange(samples + 1, device=p.device), samples, level)
    rank = torch.searchsorted(levels, p).clamp(min=1)
    found = _kth(prepared, rank.clamp(max=samples), draws.samples, seed)
    required = (math.log(level) / p.log()).ceil().clamp(1, 2**62).long()
    bad = ~finite(prepared.x, ball)
    wrong = ~found.isfinite()
    abstain = bad | (rank > samples) | wrong
    value = found.masked_fill(abstain, torch.inf).masked_fill(bad, torch.nan)
    causes = {BAD_INPUT: bad, TOO_FAR: p >= 1.0, TOO_FEW: rank > samples, BAD_DRAW: wrong}
    return CertifiedDistance(
        distance=value,
        radius=ball,
        p_required=p.masked_fill(bad, torch.nan),
        rank=rank.masked_fill(abstain, 0),
        samples=samples,
        samples_required=required.masked_fill(bad | (p >= 1.0), 0),
        alpha=alpha,
        abstain=abstain,
        reasons=reasons(len(x), causes),
        guarantee=Guarantee.of_draws(shared),
        reproducible=batching.weakest(drawn_promise(prepared), bounds_repeat(prepared, form)),
        over=shared,
    )


def _kth(prepared: Prepared, rank: Tensor, samples: int, seed: int) -> Tensor:
    """The ``rank``-th smallest drawn distance of each input, [B] float64."""

    def run(part: Prepared) -> tuple[Tensor, ...]:
        own = at_input(part.maps, part.x)
        drawn = distances(part.maps, own, seed=seed, index=part.index, samples=samples)
        return (drawn.sort(dim=1).values.gather(1, rank[part.gather, None] - 1)[:, 0],)

    maps = prepared.maps
    cost = 4 * maps.mean.bytes_per_row(prepared.itemsize, 1) + 16 * samples
    with numerics.products(prepared.x.device, "ieee"):
        generic = maps.generic("mean", "std", "pixels")
        (found,) = prepared.rows(run, cost, samples, generic=generic)
    return found
