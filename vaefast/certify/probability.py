"""How likely a reconstruction stays within r of its centre, with a confidence bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, overload

import numpy as np
import torch
from scipy import special
from torch import Tensor

from vaefast import checks
from vaefast.certify.events import Event
from vaefast.certify.level import Over, inputs_of
from vaefast.certify.lipschitz import CertifiedProbability, certified_probability
from vaefast.certify.provenance import fingerprint
from vaefast.certify.sampling import at_input, hits
from vaefast.functional.rows import finite
from vaefast.models import VAE
from vaefast.models.context import Context
from vaefast.models.likelihoods import check_pixels
from vaefast.models.prepare import Prepared, prepare
from vaefast.philox import check_seed
from vaefast.runtime import batching, numerics
from vaefast.runtime.grad_mode import without_grad

__all__ = ["RobustProbability", "clopper_pearson", "count", "robust_probability"]

FEW = 16  # counts whose bounds are computed sooner than their repetitions are found


@dataclass(frozen=True)
class RobustProbability:
    """Monte-Carlo estimate of p = P(‖g(μ+σ⊙η) − g(μ)‖₂ ≤ r) at each input.

    Attributes:
        p: [B] float64, hits/samples; NaN where the input is not finite.
        p_lower: [B] float64, at most the true p with probability 1 − alpha per input; NaN where
            the input is not finite.
        hits: [B] int64, 0 where the input is not finite.
        r: [B], the radius in output space, as given.
        samples: draws per input.
        alpha: error probability of ``p_lower``: per input, or of a run's together, see ``over``.
        seed: of the draws.
        fingerprint: checksums of the model and of the inputs, by which :func:`margin` refuses a
            probability of something else.
        reproducible: how far a row depends on the batch it stood in: ``"bits"``, ``"blocks"`` or
            ``"round-off"``, see :func:`vaefast.runtime.batching.reproducible`.
        precision: as asked for. Only with ``"ieee"`` is ``p_lower`` a bound on p; with another it
            is an estimate, as the hits may be those of a slightly different decoder.
        event: the text of the :class:`Event` whose probability it is.
        over: how many inputs share ``alpha``; each bound is one at alpha/over.
    """

    p: Tensor
    p_lower: Tensor
    hits: Tensor
    r: Tensor
    samples: int
    alpha: float
    seed: int
    fingerprint: str
    reproducible: str = "round-off"
    precision: str = "ieee"
    event: str = Event.FIXED_CENTRE.value  # plain, so that a saved result loads as weights do
    over: int = 1


class Draws(NamedTuple):
    """What a probability is estimated from."""

    samples: int
    alpha: float
    seed: int


@overload
def robust_probability(
    vae: VAE,
    x: Tensor,
    r: float | Tensor,
    *,
    samples: int = 1000,
    alpha: float = 1e-3,
    seed: int = 0,
    index: Tensor | None = None,
    precision: str = "ieee",
    context: Context = None,
    method: Literal["samples"] = "samples",
    over: Over = "input",
) -> RobustProbability: ...


@overload
def robust_probability(
    vae: VAE,
    x: Tensor,
    r: float | Tensor,
    *,
    index: Tensor | None = None,
    context: Context = None,
    method: Literal["lipschitz"],
    radii: Sequence[float] | Tensor = (0.0,),
    variant: str | None = None,
) -> CertifiedProbability: ...


@without_grad
def robust_probability(
    vae: VAE,
    x: Tensor,
    r: float | Tensor,
    *,
    samples: int = 1000,
    alpha: float = 1e-3,
    seed: int = 0,
    index: Tensor | None = None,
    precision: str = "ieee",
    context: Context = None,
    method: str = "samples",
    radii: Sequence[float] | Tensor = (0.0,),
    variant: str | None = None,
    over: Over = "input",
) -> RobustProbability | CertifiedProbability:
    """How likely a sampled reconstruction stays within r of the mean's: by draws, or certified.

        p = P_η(‖g(μ(x) + σ(x)⊙η) − g(μ(x))‖₂ ≤ r),  η ~ N(0, I)
        p_lower = BetaInv(alpha; k, S − k + 1) for k hits of S samples, 0 for k = 0

    With ``method="lipschitz"`` a lower bound that holds after every perturbation of a given length,
    from the constants of the maps and without draws (:func:`margin`).

    Args:
        vae: the VAE, in evaluation mode.
        x: [B, *event] inputs, float32 or float64.
        r: radius, float or [B], at least 0 and finite: ℓ2 over all entries, not averaged, pixel
            scale; a row whose r is NaN gives NaN.
        samples: draws S per input.
        alpha: error probability of the lower bound, in (0, 1): per input, or as ``over`` says.
        seed: seed of η.
        index: [B] int64, the global number of each input; default ``arange(B)``.
        precision: ``"ieee"``, or ``"tf32"`` or ``"bf16"``: the lowest that a GPU may decode an MLP
            in. It decides samples anew in float32 whose distance is within an error band of r that
            is estimated for each input, not proven: the result is an estimate then.
        context: conditions of each input, [B, ...] or a dict of such tensors.
        method: ``"samples"`` or ``"lipschitz"``, which takes neither draws nor a precision.
        radii: of "lipschitz", K lengths of the perturbation, ℓ2, pixel scale; 0 is x itself.
        variant: of "lipschitz", as in :func:`margin`.
        over: whose alpha is: "input" (each its own); "run": all rows' together, each bound one at
            alpha/B (Bonferroni); or n, the number of inputs of the run that x is a batch of.

    Returns:
        :class:`RobustProbability`; a draw whose reconstruction is NaN is no hit. With "lipschitz"
        :class:`CertifiedProbability`.

    Raises:
        TypeError: half precision; it has no certificates.
        ValueError: a wrong shape, ``r`` < 0 or infinite, ``samples`` < 1, ``alpha`` outside (0, 1);
            pixels outside of [0, 1], unless the likelihood is Gaussian; with "lipschitz" a map
            without a constant.

    Source: Camuto et al. 2021, mathematics.md 2.1 and 8.1; Clopper, Pearson 1934; Barrett et al.
    2022, mathematics.md 4 (lipschitz).
    """
    checks.option(method, "method", ("samples", "lipschitz"))
    draws = check_draws(samples, alpha, seed)
    if method == "lipschitz" and over != "input":
        raise ValueError('over is of method "samples"; "lipschitz" draws nothing')
    if method == "lipschitz" and precision != "ieee":
        raise ValueError(f'method "lipschitz" takes no precision, got "{precision}"')
    prepared = prepare(vae, x, index, context=context, precision=precision, half="refuse")
    check_pixels(prepared.x, vae.likelihood)
    if method == "lipschitz":
        return certified_probability(prepared, r, radii, variant)
    if variant is not None:
        raise ValueError('variant is of method "lipschitz", got method="samples"')
    shared = inputs_of(over, len(prepared.x))
    return estimate(prepared, r, draws, precision, fingerprint(prepared), shared)


def estimate(
    prepared: Prepared,
    r: float | Tensor,
    draws: Draws,
    precision: str,
    mark: str = "",
    over: int = 1,
    k: Tensor | None = None,
) -> RobustProbability:
    """For what was prepared; ``mark`` is the fingerprint of that, ``k`` hits that are there."""
    x, radius = prepared.x, check_radius(r, prepared.x)
    samples, alpha, seed = draws
    k = count(prepared, radius, seed, range(samples), precision) if k is None else k
    good = finite(x, radius)
    p_lower = torch.where(good, lower_bound(k, samples, alpha / over), torch.nan)
    p = torch.where(good, k.double() / samples, torch.nan)
    return RobustProbability(
        p=p,
        p_lower=p_lower,
        hits=k * good,
        r=radius,
        samples=samples,
        alpha=alpha,
        seed=seed,
        fingerprint=mark,
        reproducible=drawn_promise(prepared),
        precision=precision,
        over=over,
    )


def count(
    prepared: Prepared, r: Tensor, seed: int, numbers: range, precision: str = "ieee"
) -> Tensor:
    """Hits int64 among the draws of these numbers, for r [B] or [B, m] and like it."""

    def run(part: Prepared) -> tuple[Tensor, ...]:
        how = r[part.gather], part.index, numbers, precision
        return (hits(part.maps, at_input(part.maps, part.x), *how, seed=seed),)

    cost = 4 * prepared.maps.mean.bytes_per_row(prepared.itemsize, 1)
    with numerics.products(prepared.x.device, "ieee"):
        (k,) = prepared.rows(run, cost, len(numbers), generic=_generic(prepared))
    return k


def drawn_promise(prepared: Prepared) -> str:
    """How far a row's hits depend on the batch that it stood in."""
    return batching.reproducible(_generic(prepared), ("net_forward", "decode_distance"), prepared.x)


def _generic(prepared: Prepared) -> bool:
    return prepared.maps.generic("mean", "std", "pixels")


def clopper_pearson(hits: Tensor, samples: int, alpha: float) -> Tensor:
    """Lower confidence bound of a probability from k hits of S draws: P(bound > p) ≤ alpha.

        BetaInv(alpha; k, S − k + 1), and 0 for k = 0

    Equivalent to, for each k::

        scipy.stats.binomtest(k, S, alternative="greater").proportion_ci(1 - alpha).low

    Args:
        hits: [B] int64, 0 to ``samples``.
        samples: S.
        alpha: in (0, 1).

    Returns:
        [B] float64.

    Raises:
        TypeError: hits or samples are no whole numbers.
        ValueError: hits outside of 0 to ``samples``, ``samples`` < 1, ``alpha`` outside (0, 1).

    Source: Clopper, Pearson 1934; mathematics.md 8.1.
    """
    checks.tensor(hits, "hits")
    if hits.is_floating_point() or hits.is_complex() or hits.dtype == torch.bool:
        raise TypeError(f"hits must be int64, got {checks.short(hits.dtype)}; pass hits.long()")
    checks.count(samples, "samples")
    check_alpha(alpha)
    if hits.numel() and (int(hits.min()) < 0 or int(hits.max()) > samples):
        low, high = int(hits.min()), int(hits.max())
        raise ValueError(
            f"hits must be between 0 and samples = {samples}, got values from {low} to {high}"
        )
    return lower_bound(hits, samples, alpha)


def lower_bound(hits: Tensor, samples: int, alpha: float) -> Tensor:
    k = hits.cpu().numpy()
    if k.size > FEW:
        k, where = np.unique(k, return_inverse=True)
    bound = special.betaincinv(np.maximum(k, 1), samples - k + 1, alpha)
    bound[k == 0] = 0.0
    bound = bound[where] if hits.numel() > FEW else bound
    return torch.from_numpy(bound.reshape(hits.shape)).to(hits.device)


def check_radius(r: float | Tensor, x: Tensor) -> Tensor:
    """[B] like x, at least 0 and not infinite."""
    radius = checks.per_row(r, "r", len(x), like=x, minimum=0.0)
    if bool((radius == torch.inf).any()):
        raise ValueError("r must be finite, got inf")
    return radius


def check_draws(samples: int, alpha: float, seed: int) -> Draws:
    return Draws(checks.count(samples, "samples"), check_alpha(alpha), check_seed(seed))


def check_alpha(alpha: float) -> float:
    """An error probability in (0, 1)."""
    if 0.0 < checks.number(alpha, "alpha") < 1.0:
        return alpha
    raise ValueError(f"alpha must lie in (0, 1), got {alpha:g}")
