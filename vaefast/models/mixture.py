"""A mixture of diagonal Gaussians as the prior p(z): its density and gradient in closed form."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vaefast import checks
from vaefast.models.vae import VAE

__all__ = ["Components", "GaussianMixture", "closed_form"]


class Components(NamedTuple):
    """The components of a mixture, each tensor float64; squares are expanded, no [n, K, d] is."""

    precision: Tensor  # 1/v [K, d]
    weighted: Tensor  # m/v [K, d]
    log_weight: Tensor  # [K], with all that does not depend on z

    def terms(self, z: Tensor) -> Tensor:
        """log w_k N(z; m_k, v_k), [n, K]."""
        z = z.double()
        return z @ self.weighted.T - 0.5 * (z.square() @ self.precision.T) + self.log_weight

    @torch.no_grad()
    def log_prob_and_gradient(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """log p(z) [n] float64, and Σ_k r_k(z) (m_k − z)/v_k [n, d], r the responsibilities."""
        terms = self.terms(z)
        share = torch.softmax(terms, 1)
        pull = share @ self.weighted - z.double() * (share @ self.precision)
        return torch.logsumexp(terms, 1), pull.to(z.dtype)


class GaussianMixture(nn.Module):
    """p(z) = Σ_k w_k N(z; m_k, diag v_k), for ``prior=``; parameters or buffers as they are given.

    Sampling takes the gradient from the closed form, beside the fused likelihood where the decoder
    lowers; a VampPrior is this with the moments of q at the pseudo-inputs.

    Args:
        means: m [K, d], floating.
        logvars: log v [K, d] or [d].
        logits: log w [K] up to a constant; None: equal weights.

    Raises:
        TypeError: no floating tensors.
        ValueError: shapes that do not fit.
    """

    means: Tensor
    logvars: Tensor
    logits: Tensor

    def __init__(self, means: Tensor, logvars: Tensor, logits: Tensor | None = None) -> None:
        super().__init__()
        checks.batch(means, "means")
        K, d = means.shape if means.ndim == 2 else (0, 0)
        if not K or not d:
            raise ValueError(f"means must be [K, d], got {list(means.shape)}")
        logits = means.new_zeros(K) if logits is None else checks.tensor(logits, "logits")
        if list(checks.tensor(logvars, "logvars").shape) not in ([K, d], [d]):
            raise ValueError(
                f"logvars must be [K, d] = [{K}, {d}] or [d] = [{d}], got {list(logvars.shape)}"
            )
        if list(logits.shape) != [K]:
            raise ValueError(f"logits must be [K] = [{K}], got {list(logits.shape)}")
        for name, value in (("means", means), ("logvars", logvars), ("logits", logits)):
            if isinstance(value, nn.Parameter):
                self.register_parameter(name, value)
            else:
                self.register_buffer(name, value)

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) [n] float64 in nats, for z [n, d]; differentiable."""
        return torch.logsumexp(self.components().terms(z), 1)

    def log_prob_and_gradient(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """log p(z) [n] float64, and its gradient [n, d]."""
        return self.components().log_prob_and_gradient(z)

    def components(self) -> Components:
        """What the density needs of means, variances and weights as they are now."""
        means, logvars = self.means.double(), self.logvars.double().expand(self.means.shape)
        precision = torch.exp(-logvars)
        constant = logvars.sum(1) + means.shape[1] * math.log(2.0 * math.pi)
        square = (means.square() * precision).sum(1)
        weight = torch.log_softmax(self.logits.double(), 0)
        return Components(precision, means * precision, weight - 0.5 * (square + constant))


def closed_form(vae: VAE) -> Components | None:
    """The VAE's prior as a mixture, read now: it is one, or has a ``mixture()`` that gives it."""
    if type(vae).log_prior is not VAE.log_prior:
        return None
    mixture = getattr(vae.prior, "mixture", None)
    found = mixture() if callable(mixture) else vae.prior
    if type(found) is not GaussianMixture:  # a subclass may have a density of its own
        return None
    with torch.no_grad():
        return found.components()
