"""A mixture of diagonal Gaussians as the prior p(z): its density and gradient in closed form."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vaefast import checks
from vaefast.models.vae import VAE

__all__ = ["GaussianMixture", "closed_form"]


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
        return torch.logsumexp(self._terms(z), 1)

    @torch.no_grad()
    def log_prob_and_gradient(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """log p(z) [n] float64, and Σ_k r_k(z) (m_k − z)/v_k [n, d], r the responsibilities."""
        terms = self._terms(z)
        share = torch.softmax(terms, 1)
        precision = torch.exp(-self._logvars())
        pull = share @ (self.means.double() * precision) - z.double() * (share @ precision)
        return torch.logsumexp(terms, 1), pull.to(z.dtype)

    def _terms(self, z: Tensor) -> Tensor:
        """log w_k N(z; m_k, v_k), [n, K] float64; the square expanded, so that no [n, K, d] is."""
        z, means, logvars = z.double(), self.means.double(), self._logvars()
        precision = torch.exp(-logvars)
        square = z.square() @ precision.T - 2.0 * z @ (means * precision).T
        own = (means.square() * precision + logvars).sum(1) + z.shape[1] * math.log(2.0 * math.pi)
        return torch.log_softmax(self.logits.double(), 0) - 0.5 * (square + own)

    def _logvars(self) -> Tensor:
        return self.logvars.double().expand(self.means.shape)


def closed_form(vae: VAE) -> GaussianMixture | None:
    """The VAE's prior as a mixture, read now: it is one, or has a ``mixture()`` that gives it."""
    if type(vae).log_prior is not VAE.log_prior:
        return None
    if isinstance(vae.prior, GaussianMixture):
        return vae.prior if type(vae.prior) is GaussianMixture else None
    mixture = getattr(vae.prior, "mixture", None)
    found = mixture() if callable(mixture) else None
    return found if isinstance(found, GaussianMixture) else None
