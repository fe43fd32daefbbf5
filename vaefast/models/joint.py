"""A posterior of the caller's own: log p(x, z) by a function of z and x, for the sampler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vaefast import checks
from vaefast.models.context import Context
from vaefast.models.likelihoods import LikelihoodAt
from vaefast.models.vae import VAE

__all__ = ["JOINT", "JointVAE", "from_log_joint", "require_reconstructions"]

JOINT = "joint"  # its decoder_output: nothing decodes


class JointAt(NamedTuple):
    """log p(x, z) at n latents, as a :class:`~vaefast.models.likelihoods.LikelihoodAt`."""

    log_joint: Callable[[Tensor, Tensor], Any]
    z: Tensor  # [n, *latent_shape]
    event: tuple[int, ...]

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x, z) [n] float64 in nats, for x [B, ...] with n = B·C."""
        n = len(self.z)
        x = x.reshape(-1, *self.event).repeat_interleave(n // max(len(x), 1), dim=0)
        value = self.log_joint(self.z, x)
        if not isinstance(value, Tensor):
            raise TypeError(
                f"log_joint must return a tensor [n] = [{n}], got {type(value).__name__}"
            )
        if list(value.shape) != [n]:
            raise ValueError(
                f"log_joint must return one number per row, [n] = [{n}], got {list(value.shape)}; "
                "sum over latents and entries of x"
            )
        return value.double()


class JointVAE(VAE):
    """What :func:`from_log_joint` makes: q(z|x) to start from, and log p(x, z); it decodes nothing.

    Its ``likelihood_at`` holds the whole joint density, its ``log_prior`` is 0.
    """

    def __init__(
        self,
        log_joint: Callable[[Tensor, Tensor], Any],
        latents: int | None,
        posterior: Callable[[Tensor], Any] | None,
    ) -> None:
        nn.Module.__init__(self)
        start = _Start(latents, posterior)
        self._assemble(start, nn.Identity(), "gaussian", None, None, "mean", None, "logvar")
        self.decoder_output = JOINT
        self.log_joint = log_joint

    def likelihood_at(self, z: Tensor, context: Context = None) -> LikelihoodAt:
        at: Any = JointAt(self.log_joint, self.unflat(z), tuple(self.event_shape or ()))
        return at

    def log_prior(self, z: Tensor, context: Context = None) -> Tensor:
        return z.new_zeros(len(z), dtype=torch.float64)

    def decode(self, z: Tensor, context: Context = None) -> Tensor:
        return self.flat(z)

    def g(self, z: Tensor, context: Context = None) -> Tensor:
        return self.flat(z)


def require_reconstructions(vae: VAE) -> None:
    """Refuse to take a density for a decoder.

    Raises:
        TypeError: the model comes from :func:`from_log_joint`.
    """
    if vae.decoder_output == JOINT:
        raise TypeError(
            "a model of from_log_joint has a density and no reconstructions; it is for hmc.sample "
            "and hmc.log_marginal"
        )


class _Start(nn.Module):
    """x ↦ mean and log-variance of what the chains start from."""

    def __init__(self, latents: int | None, posterior: Callable[[Tensor], Any] | None) -> None:
        super().__init__()
        self.latents, self.posterior = latents, posterior

    def forward(self, x: Tensor) -> Any:
        if self.posterior is not None:
            return self.posterior(x)
        zeros = x.new_zeros(len(x), self.latents or 0)
        return zeros, zeros


def from_log_joint(
    log_joint: Callable[[Tensor, Tensor], Any],
    *,
    latents: int | None = None,
    posterior: Callable[[Tensor], Any] | None = None,
) -> JointVAE:
    """A model of which only log p(x, z) is known, for :func:`vaefast.hmc.sample` and its kin.

    The chains run in U(z) = −log_joint(z, x) by autograd, the leapfrogs around it in the fused op;
    whatever needs reconstructions (attacks, certificates, the defence's images) refuses it.

    Args:
        log_joint: (z [n, *latent_shape], x [n, *event]) ↦ log p(x, z) up to a constant, [n] in
            nats, by torch functions; row i of x belongs to row i of z. A module moves with the
            model.
        latents: d; the chains start at N(0, I) and the default mass is 1.
        posterior: in its place, x ↦ (mean, logvar) of what they start from, and which
            ``mass="posterior"`` and :func:`vaefast.hmc.log_marginal` take for q(z|x).

    Raises:
        TypeError: not functions, or neither ``latents`` nor ``posterior``.
        ValueError: ``latents`` below 1.
    """
    for name, function in (("log_joint", log_joint), ("posterior", posterior)):
        if not (callable(function) or (function is None and name == "posterior")):
            raise TypeError(f"{name} must be a function, got {type(function).__name__}")
    if (latents is None) == (posterior is None):
        raise TypeError(
            "from_log_joint needs latents= (start at N(0, I)) or posterior= (x to mean and logvar)"
            + (", not both" if latents is not None else "")
        )
    if latents is not None:
        checks.count(latents, "latents")
    return JointVAE(log_joint, latents, posterior)
