"""Which inputs of a list are certified at one radius, all at once; and what that rests on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vaefast import checks
from vaefast.certify.events import Event
from vaefast.certify.families import binomial_p_values, holm
from vaefast.certify.guarantee import Guarantee
from vaefast.certify.local import bounds_repeat, moved, require_local
from vaefast.certify.probability import check_draws, check_radius, count, drawn_promise
from vaefast.certify.sampling import at_input
from vaefast.certify.sampling import distances as drawn
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

__all__ = ["CertifiedInputs", "certified_at", "drawn_distances", "required_at"]

BAD_INPUT = "x, r or radius is not finite"
TOO_FAR = "the ball moves the posterior too far for any probability that draws could show"
NOT_SHOWN = "the draws do not show the probability that the ball's displacement asks for"


@dataclass(frozen=True)
class CertifiedInputs:
    """A list of inputs that are certified at a given radius and r.

    Attributes:
        certified: [B] bool: on the list. With probability 1 − alpha all that are on it are right.
        p_value: [B] float64, P(Bin(S, p_required) ≥ hits); 1 where nothing can be shown.
        p_required: [B] float64, the probability at x that the ball's displacement asks for; 1 where
            none is known to be enough, NaN where the input is not finite.
        hits: [B] int64, draws that stayed within r.
        radius: [B] float64, of the ball of perturbations.
        r: [B], of the reconstruction.
        samples: draws per input.
        alpha: error probability of the whole list.
        reasons: why a row is not on it, "" where it is.
        guarantee: a :class:`Guarantee`.
        reproducible: how far a row depends on the batch it stood in.
        event: the :class:`Event`.
    """

    certified: Tensor
    p_value: Tensor
    p_required: Tensor
    hits: Tensor
    radius: Tensor
    r: Tensor
    samples: int
    alpha: float
    reasons: Reasons
    guarantee: Guarantee = Guarantee.LOCAL_RUN
    reproducible: str = "round-off"
    event: Event = Event.FIXED_CENTRE


@without_grad
def certified_at(
    vae: VAE,
    x: Tensor,
    radius: float | Tensor,
    r: float | Tensor,
    *,
    samples: int = 2000,
    alpha: float = 1e-3,
    seed: int = 0,
    index: Tensor | None = None,
    context: Context = None,
    form: str = "smaller",
) -> CertifiedInputs:
    """Which of these inputs are certified at one radius, with one error probability for the list.

    An input is certified where for every x' with ‖x' − x‖₂ ≤ radius the reconstruction stays within
    r with probability above ½. It is where P(‖Δ‖ ≤ r) at x is at least the p_required of
    :func:`required_at`; each input is tested for this by its draws, and Holm's procedure makes the
    list. It never holds fewer than the inputs whose :func:`margin` at alpha/B and as many draws
    reaches the radius, but for the steps in which a margin is looked for.

    Args:
        vae: the VAE, in evaluation mode, its encoder one that lowers.
        x: [B, *event] inputs, float32 or float64.
        radius: of the perturbations, float or [B], ℓ2 in pixel scale, at least 0 and finite. Like
            r it has to be fixed before the draws are looked at.
        r: of the reconstruction, float or [B], likewise.
        samples: draws S per input. Tip: at least ln(alpha/B)/ln p_required, or no input whose
            p_required is as large can be first on the list.
        alpha: error probability of the whole list, in (0, 1).
        seed: of the draws, which are those of :func:`robust_probability`.
        index: [B] int64, the global number of each input; default ``arange(B)``.
        context: conditions of each input, [B, ...] or a dict of such tensors.
        form: of the encoder's bound, as in :func:`margin`.

    Returns:
        :class:`CertifiedInputs`.

    Raises:
        TypeError: half precision.
        ValueError: a wrong shape or option, an encoder that does not lower, pixels outside [0, 1]
            unless the likelihood is Gaussian.

    Source: Holm 1979; mathematics.md 8.1 to 8.3.
    """
    draws = check_draws(samples, alpha, seed)
    prepared, ball = _prepared(vae, x, radius, index, context, form)
    limit = check_radius(r, prepared.x)
    p = _required(prepared, ball, form)
    k = count(prepared, limit, draws.seed, range(samples))
    bad = ~finite(prepared.x, ball, limit)
    p = p.masked_fill(bad, torch.nan)
    values = binomial_p_values(k, samples, p)
    chosen = holm(values, alpha)
    causes = {BAD_INPUT: bad, TOO_FAR: p >= 1.0, NOT_SHOWN: ~chosen}
    return CertifiedInputs(
        certified=chosen,
        p_value=values,
        p_required=p,
        hits=k.masked_fill(bad, 0),
        radius=ball,
        r=limit,
        samples=samples,
        alpha=alpha,
        reasons=reasons(len(x), causes),
        reproducible=batching.weakest(drawn_promise(prepared), bounds_repeat(prepared, form)),
    )


@without_grad
def required_at(
    vae: VAE,
    x: Tensor,
    radius: float | Tensor,
    *,
    index: Tensor | None = None,
    context: Context = None,
    form: str = "smaller",
) -> Tensor:
    """The probability at x with which a margin of ``radius`` is certified, whatever r is.

    Where P(‖Δ‖ ≤ r) at x is at least this, it is above ½ at every x' with ‖x' − x‖₂ ≤ radius. It
    comes from the encoder alone: nothing is drawn.

    Args:
        vae: the VAE, in evaluation mode, its encoder one that lowers.
        x: [B, *event] inputs, float32 or float64.
        radius: of the perturbations, float or [B], ℓ2 in pixel scale, at least 0 and finite.
        index: [B] int64, the global number of each input; it only places rows.
        context: conditions of each input, [B, ...] or a dict of such tensors.
        form: of the encoder's bound, as in :func:`margin`.

    Returns:
        [B] float64, above ½; 1 where none is known to be enough, NaN where the input is not finite.

    Raises:
        TypeError: half precision.
        ValueError: a wrong shape or option, an encoder that does not lower, pixels outside [0, 1]
            unless the likelihood is Gaussian.

    Source: mathematics.md 8.2 and 8.3. Tip: :func:`binomial_p_values` and :func:`holm` make of it
    and of hits that are there already the list of :func:`certified_at`.
    """
    prepared, ball = _prepared(vae, x, radius, index, context, form)
    p = _required(prepared, ball, form)
    return p.masked_fill(~finite(prepared.x, ball), torch.nan)


@without_grad
def drawn_distances(
    vae: VAE,
    x: Tensor,
    *,
    samples: int = 1000,
    seed: int = 0,
    index: Tensor | None = None,
    context: Context = None,
) -> Tensor:
    """‖g(μ(x) + σ(x)⊙η_s) − g(μ(x))‖₂ of S draws, those that :func:`robust_probability` counts.

    For what is chosen or stated of one set of draws: :func:`order_statistics`, :func:`band`.

    Args:
        vae: the VAE, in evaluation mode.
        x: [B, *event] inputs, float32 or float64.
        samples: draws S per input.
        seed: of η.
        index: [B] int64, the global number of each input; default ``arange(B)``.
        context: conditions of each input, [B, ...] or a dict of such tensors.

    Returns:
        [B, S] float64, ℓ2 over all entries, pixel scale, in the order of the draws; NaN where the
        input is not finite.

    Raises:
        TypeError: half precision.
        ValueError: a wrong shape, ``samples`` < 1, pixels outside of [0, 1] unless the likelihood
            is Gaussian.

    Source: mathematics.md 8.1. Tip: 8 bytes a draw; of many inputs ``vaefast.jobs`` keeps 64 order
    statistics each.
    """
    check_draws(samples, 0.5, seed)
    prepared = prepare(vae, x, index, context=context, half="refuse")
    check_pixels(prepared.x, vae.likelihood)

    def run(part: Prepared) -> tuple[Tensor, ...]:
        own = at_input(part.maps, part.x)
        return (drawn(part.maps, own, seed=seed, index=part.index, samples=samples),)

    maps = prepared.maps
    cost = 4 * maps.mean.bytes_per_row(prepared.itemsize, 1) + 16 * samples
    with numerics.products(prepared.x.device, "ieee"):
        generic = maps.generic("mean", "std", "pixels")
        (found,) = prepared.rows(run, cost, samples, generic=generic)
    return found.masked_fill(~finite(prepared.x)[:, None], torch.nan)


def _prepared(
    vae: VAE,
    x: Tensor,
    radius: float | Tensor,
    index: Tensor | None,
    context: Context,
    form: str,
) -> tuple[Prepared, Tensor]:
    """The rows, and the radius of each, [B] float64."""
    checks.option(form, "form", FORMS)
    prepared = prepare(vae, x, index, context=context, half="refuse")
    check_pixels(prepared.x, vae.likelihood)
    require_local(prepared, "local")
    ball = checks.per_row(radius, "radius", len(x), like=prepared.x, minimum=0.0).double()
    if bool((ball == torch.inf).any()):
        raise ValueError("radius must be finite, got inf")
    return prepared, ball


def _required(prepared: Prepared, ball: Tensor, form: str) -> Tensor:
    return required_probability(*moved(prepared, ball, form))
