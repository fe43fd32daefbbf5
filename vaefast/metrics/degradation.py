"""How much likelihood an attack costs the clean input."""

from __future__ import annotations

import torch
from torch import Tensor

from vaefast import checks, ops, philox
from vaefast.elbo import check_vae
from vaefast.functional.rows import finite, nan_where_bad
from vaefast.models import VAE
from vaefast.models.footprint import activation_bytes
from vaefast.models.paths import Paths
from vaefast.philox import Use
from vaefast.runtime import batching
from vaefast.runtime.batching import Rows

__all__ = ["likelihood_degradation"]


@torch.inference_mode(False)
@torch.no_grad()
def likelihood_degradation(
    vae: VAE, x: Tensor, x_adv: Tensor, *, seed: int = 0, index: Tensor | None = None
) -> Tensor:
    """Relative loss of log-likelihood of the clean input when its latent is the attacked one's.

        |log p(x|z*) − log p(x|z)| / |log p(x|z)|,  z = μ(x) + σ(x)η,  z* = μ(x_adv) + σ(x_adv)η

    One sample each, and the same noise η ~ N(0, I) for both, so that an attack that changes
    nothing costs exactly nothing. The ratio has no meaning where log p(x|z) is near 0, which a
    density can be: there it is very large, and infinite at 0.

    Args:
        vae: the VAE, in evaluation mode.
        x: [B, *event] clean inputs, float.
        x_adv: attacked inputs like ``x``.
        seed: seed of η.
        index: [B] int64, the global number of each input; default ``arange(B)``.

    Returns:
        [B] float64, at least 0, possibly infinite; NaN where a row of ``x`` or ``x_adv`` is not
        finite.

    Raises:
        TypeError: ``vae`` is no VAE, ``seed`` is no whole number.
        ValueError: shapes differ.
        RuntimeError: the model is in training mode.

    Source: Camuto, Willetts, Roberts, Holmes, Rainforth, "Towards a theoretical understanding of
    the robustness of variational autoencoders", AISTATS 2021; the modulus of the denominator, for
    log-densities of either sign, is ours.
    """
    check_vae(vae)
    checks.eval_mode(vae)
    checks.batch(x)
    checks.shape(x_adv, "x_adv", x.shape, "x")
    checks.same_device(x=x, x_adv=x_adv)
    index = checks.row_index(index, len(x), x.device)
    seed = philox.check_seed(seed)
    paths = Paths.of(vae, x)

    def run(rows: Rows) -> tuple[Tensor, ...]:
        clean = _log_likelihood(paths, x[rows], x[rows], seed, index[rows])
        attacked = _log_likelihood(paths, x_adv[rows], x[rows], seed, index[rows])
        relative = (attacked - clean).abs() / clean.abs()
        relative = torch.where(attacked == clean, 0.0, relative)  # also where both are 0
        return nan_where_bad(finite(x[rows], x_adv[rows]), relative)

    generic = paths.encoder is None or paths.decoder is None
    cost = activation_bytes(vae.reconstruct, x, vae)
    (degradation,) = batching.evaluate(run, index, cost, generic=generic)
    return degradation


def _log_likelihood(paths: Paths, source: Tensor, x: Tensor, seed: int, index: Tensor) -> Tensor:
    """log p(x|z) for one z ~ q(z|source), [B] float64, nats."""
    mean, std = paths.posterior(source)
    noise = philox.normal(
        mean.shape[1], seed=seed, index=index, use=Use.POSTERIOR, dtype=mean.dtype
    )
    vae, out = paths.vae, paths.decode(mean + std * noise).flatten(1)
    params = vae.likelihood_params
    pixels = x.flatten(1)
    logp, _ = ops.log_likelihood(out, pixels, likelihood=vae.likelihood, likelihood_params=params)
    return logp
