"""The KL term in three parts, estimated from a batch, and the β-TCVAE that weighs one of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from vaefast import checks
from vaefast.models.context import as_keyword
from vaefast.models.posterior import DiagonalGaussian
from vaefast.models.vae import VAE
from vaefast.training.step import Step
from vaefast.training.weights import check_weight

__all__ = ["ESTIMATORS", "TCVAE", "Decomposition", "decompose_kl"]

ESTIMATORS = ("weighted", "stratified")


class Decomposition(NamedTuple):
    """KL(q(z|x) ‖ p(z)) in three parts whose sum it is, each [n] float64, nats at the draws.

    Args:
        mutual_information: log q(z|x) − log q(z).
        total_correlation: log q(z) − Σ_d log q(z_d).
        dimension_kl: Σ_d log q(z_d) − log p(z).
    """

    mutual_information: Tensor
    total_correlation: Tensor
    dimension_kl: Tensor


def decompose_kl(
    mean: Tensor,
    logvar: Tensor,
    z: Tensor,
    log_prior: Tensor,
    rows: int,
    estimator: str = "weighted",
) -> Decomposition:
    """The three parts of the KL term at draws z_i ~ q(z|x_i) of a batch of M inputs.

        "weighted"    log q(z_i) ≈ log Σ_j q(z_i|x_j) − log(N·M)
        "stratified"  log q(z_i) ≈ log [q(z_i|x_i)/N + (N−1)/(N·(M−1)) Σ_{j≠i} q(z_i|x_j)]

    and the same for each z_d. The sums run over the inputs j whose posteriors mix into q(z), not
    over the draws i.

    "stratified" is unbiased for q(z) itself. "weighted" is the published form: it gives a draw's
    own posterior more than its share, so that its log q(z) is too low, by log N where all
    posteriors are alike (or M = N) and by log M where they do not overlap; the total correlation of
    d latents is then too high by up to (d − 1)·log N. A constant does not change the gradient.

    Args:
        mean, logvar: of q(z|x_j), [M, d].
        z: [M, d], differentiable.
        log_prior: log p(z_i) [M], nats.
        rows: N, inputs in the training set, at least M.
        estimator: ``"weighted"`` or ``"stratified"``.

    Source: Chen, Li, Grosse, Duvenaud 2018, with minibatch weighted sampling (appendix C.1) and the
    mean over all choices of stratified sampling (C.2). The code of Kuzina et al. 2022 sums over i
    and leaves out log N.
    """
    checks.option(estimator, "estimator", ESTIMATORS)
    own = DiagonalGaussian(mean, logvar, tuple(mean.shape[1:])).log_prob(z)
    z, mean, logvar = (t.double() for t in (z, mean, logvar))
    scaled = (z[:, None] - mean).square() * torch.exp(-logvar)
    pairs = -0.5 * (scaled + logvar + math.log(2.0 * math.pi))  # [i, j, d]: log q(z_id|x_j)
    weights = _log_weights(len(z), max(rows, len(z)), estimator).to(z)  # [i, j]
    log_q = torch.logsumexp(pairs.sum(2) + weights, dim=1)
    log_marginals = torch.logsumexp(pairs + weights[:, :, None], dim=1).sum(1)
    return Decomposition(own - log_q, log_q - log_marginals, log_marginals - log_prior.double())


def _log_weights(batch: int, rows: int, estimator: str) -> Tensor:
    """[i, j] float64: log of the share of q(z|x_j) in q(z_i)."""
    if estimator == "weighted":
        return torch.full(
            (batch, batch), -math.log(rows * batch), dtype=torch.float64, device="cpu"
        )
    others = (rows - 1) / (rows * (batch - 1)) if batch > 1 else 0.0
    weights = torch.full((batch, batch), others, dtype=torch.float64, device="cpu")
    return weights.fill_diagonal_(1.0 / rows if batch > 1 else 1.0).log()


@dataclass(frozen=True)
class TCVAE:
    """−log p(x|z) + MI + β·TC + KL by dimension, the parts of :func:`decompose_kl`.

    Memory and time grow with the square of the batch: M²·d numbers.

    Args:
        beta: weight of the total correlation.
        estimator: of q(z) and its marginals.

    Source: Chen, Li, Grosse, Duvenaud 2018; Kuzina et al. 2022 train it with β of 2, 5 and 10.
    """

    beta: float = 1.0
    estimator: str = "weighted"

    def __post_init__(self) -> None:
        check_weight(self.beta)
        checks.option(self.estimator, "estimator", ESTIMATORS)

    def terms(self, vae: VAE, x: Tensor, step: Step) -> dict[str, Tensor]:
        """The loss, log p(x|z) and the three parts of the KL term, nats [n]."""
        given = as_keyword(step.context)
        mean, logvar = vae.encode(x, **given)
        z = mean + torch.exp(0.5 * logvar) * step.normal(mean)
        logp = vae.likelihood_at(z, **given).log_prob(x)
        parts = decompose_kl(mean, logvar, z, vae.log_prior(z, **given), step.rows, self.estimator)
        weighed = parts._replace(total_correlation=self.beta * parts.total_correlation)
        return {"loss": sum(weighed) - logp, "reconstruction": logp, **parts._asdict()}
