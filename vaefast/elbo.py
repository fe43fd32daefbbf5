"""The evidence lower bound of a VAE: its two terms at a sample, and its value per input."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vaefast import checks, philox
from vaefast.models import VAE
from vaefast.models.context import Context, as_keyword
from vaefast.models.likelihoods import check_pixels
from vaefast.models.maps import Maps
from vaefast.models.posterior import DiagonalGaussian
from vaefast.models.prepare import Prepared, prepare
from vaefast.runtime.grad_mode import without_grad

__all__ = ["ELBO", "elbo_terms", "evaluate_elbo", "kl_term"]

TEMPORARIES = 256  # bytes of one row's activations, per byte of the row: an estimate


class ELBO(NamedTuple):
    """The evidence lower bound per input: elbo = reconstruction − kl, each [B] float64, nats."""

    elbo: Tensor
    reconstruction: Tensor
    kl: Tensor


@without_grad
def evaluate_elbo(
    vae: VAE,
    x: Tensor,
    *,
    samples: int = 1,
    seed: int = 0,
    index: Tensor | None = None,
    context: Context = None,
) -> ELBO:
    """The evidence lower bound of each input, by Monte Carlo over q(z|x).

        elbo = E_q[log p(x|z)] − KL(q(z|x) ‖ p(z))

    The KL term is exact for the prior N(0, I) and from the same samples for any other.

    Args:
        vae: in eval mode.
        x: inputs [B, *event], in [0, 1] but for the Gaussian likelihood.
        samples: draws of z per input.
        seed, index: which random numbers a row gets; index [B] int64, by default ``arange(B)``.
        context: conditions of each input, [B, ...] or a dict of such tensors.

    Returns:
        :class:`ELBO`, nats per input; NaN for a row that holds NaN.

    Raises:
        TypeError, ValueError: as the other functions on a VAE and its inputs.
        RuntimeError: dropout or batch norm in training mode.
    """
    checks.count(samples, "samples")
    seed = philox.check_seed(seed)
    prepared = prepare(vae, x, index, context=context)
    check_pixels(prepared.x, vae.likelihood)
    cost = TEMPORARIES * prepared.itemsize * prepared.pixels
    generic = prepared.maps.generic("encoder", "decoder")
    return ELBO(*prepared.rows(lambda part: _evaluate(part, samples, seed), cost, generic=generic))


def _evaluate(part: Prepared, samples: int, seed: int) -> ELBO:
    maps, x = part.maps, part.x
    mean, logvar = maps.encode(x)
    reconstruction = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    kl = torch.zeros_like(reconstruction)
    for sample in range(samples):
        noise = philox.normal(
            mean.shape[1],
            seed=seed,
            index=part.index,
            step=sample,
            use=philox.Use.POSTERIOR,
            dtype=mean.dtype,
        )
        terms = elbo_terms(maps, x, mean, logvar, noise)
        reconstruction += terms[0] / samples
        kl += terms[1] / samples
    return ELBO(reconstruction - kl, reconstruction, kl)


def elbo_terms(
    maps: VAE | Maps,
    x: Tensor,
    mean: Tensor,
    logvar: Tensor,
    noise: Tensor,
    context: Context = None,
) -> tuple[Tensor, Tensor]:
    """log p(x|z) and the KL term at z = μ + σ·noise, each [n] float64, nats.

    A VAE is given the context of x; maps hold it already.
    """
    given = as_keyword(context)
    q = DiagonalGaussian(mean, logvar, tuple(mean.shape[1:]))
    z = q.sample(noise)
    return maps.likelihood_at(z, **given).log_prob(x), kl_term(maps, q, z, context)


def kl_term(maps: VAE | Maps, q: DiagonalGaussian, z: Tensor, context: Context = None) -> Tensor:
    """KL(q ‖ p(z)) [n] float64, nats: exact for the prior N(0, I), else at the draw z of q."""
    vae = maps if isinstance(maps, VAE) else maps.vae
    if vae.prior is None and type(vae).log_prior is VAE.log_prior:
        return q.kl()
    return q.log_prob(z) - maps.log_prior(z, **as_keyword(context))
