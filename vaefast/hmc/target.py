"""The posterior p(z|x) as a potential energy: a fast path for MLP decoders, one for all others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from vaefast import ops
from vaefast.models.vae import VAE
from vaefast.reference.chain import Chain, chain
from vaefast.types import MLP

__all__ = ["GenericTarget", "MLPTarget", "Target"]

NO_GRADIENT = (
    "the decoder's output or the prior carries no gradient to z; "
    "remove detach() or torch.no_grad() from decode and log_prob"
)


class Target(Protocol):
    """U(z) = −log p(x|z) − log p(z) for N = B·C chains, and the trajectory that it drives."""

    def potential(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """U [N] float64 in nats and its gradient [N, d]."""

    def trajectory(
        self, z: Tensor, p: Tensor, grad: Tensor, step: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """L leapfrogs from (z, p): the end's z, p, gradient and U, with exactly L gradients."""

    def chain(
        self,
        z: Tensor,
        U: Tensor,
        grad: Tensor,
        *,
        step: Tensor,
        jitter: float,
        seed: int,
        index: Tensor,
        first_step: int,
        steps: int,
        thin: int,
    ) -> Chain:
        """Transitions with a frozen step size [B]; those numbered k·thin − 1 are kept."""


@dataclass(frozen=True)
class MLPTarget:
    """A decoder that is an MLP, with the prior N(0, I): everything runs in the fused ops."""

    x: Tensor  # [B, D]
    mlp: MLP
    likelihood: str
    obs_std: float
    inv_mass: Tensor | None  # [B, d]
    leapfrog: int
    precision: str
    backend: str | None

    def potential(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return ops.mlp_potential(
            z,
            self.x,
            self.mlp,
            likelihood=self.likelihood,
            obs_std=self.obs_std,
            precision=self.precision,
            backend=self.backend,
        )

    def trajectory(
        self, z: Tensor, p: Tensor, grad: Tensor, step: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return ops.mlp_trajectory(
            z,
            p,
            grad,
            self.x,
            self.mlp,
            likelihood=self.likelihood,
            obs_std=self.obs_std,
            step=step,
            inv_mass=self.inv_mass,
            leapfrog=self.leapfrog,
            precision=self.precision,
            backend=self.backend,
        )

    def chain(
        self,
        z: Tensor,
        U: Tensor,
        grad: Tensor,
        *,
        step: Tensor,
        jitter: float,
        seed: int,
        index: Tensor,
        first_step: int,
        steps: int,
        thin: int,
    ) -> Chain:
        return ops.mlp_chain(
            z,
            U,
            grad,
            self.x,
            self.mlp,
            likelihood=self.likelihood,
            obs_std=self.obs_std,
            step=step,
            inv_mass=self.inv_mass,
            leapfrog=self.leapfrog,
            jitter=jitter,
            seed=seed,
            index=index,
            first_step=first_step,
            steps=steps,
            thin=thin,
            precision=self.precision,
            backend=self.backend,
        )


@dataclass(frozen=True)
class GenericTarget:
    """Any decoder and any prior: autograd through them, the fused ops around them."""

    x: Tensor  # [B, D]
    vae: VAE
    likelihood: str
    inv_mass: Tensor | None  # [B, d]
    leapfrog: int
    backend: str | None

    def potential(self, z: Tensor) -> tuple[Tensor, Tensor]:
        good = torch.isfinite(z).all(1)  # no module or prior of the user's sees NaN
        with torch.enable_grad():
            z = torch.where(good[:, None], z, 0.0).requires_grad_()
            out = self.vae.decode(z).flatten(1)  # [N, D]
            log_prior = self.vae.log_prior(z)  # [N] float64
        if not (out.requires_grad and log_prior.requires_grad):
            raise RuntimeError(NO_GRADIENT)
        with torch.no_grad():
            logp, dlogp_dout = ops.log_likelihood(
                out.detach(),
                self.x,
                likelihood=self.likelihood,
                obs_std=self.vae.obs_std,
                backend=self.backend,
            )
        outer = [-dlogp_dout, torch.full_like(log_prior, -1.0)]
        (grad,) = torch.autograd.grad([out, log_prior], z, outer)
        U = -logp - log_prior.detach()
        return torch.where(good, U, torch.nan), torch.where(good[:, None], grad, torch.nan)

    def trajectory(
        self, z: Tensor, p: Tensor, grad: Tensor, step: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        z, p = z.clone(), p.clone()
        self._kick(z, p, grad, step, kick=0.5, drift=True)
        for leap in range(1, self.leapfrog + 1):
            U, grad = self.potential(z)
            last = leap == self.leapfrog
            self._kick(z, p, grad, step, kick=0.5 if last else 1.0, drift=not last)
        return z, p, grad, U

    def chain(
        self,
        z: Tensor,
        U: Tensor,
        grad: Tensor,
        *,
        step: Tensor,
        jitter: float,
        seed: int,
        index: Tensor,
        first_step: int,
        steps: int,
        thin: int,
    ) -> Chain:
        return chain(
            self.trajectory,
            z,
            U,
            grad,
            step=step,
            inv_mass=self.inv_mass,
            jitter=jitter,
            seed=seed,
            index=index,
            first_step=first_step,
            steps=steps,
            thin=thin,
        )

    def _kick(
        self, z: Tensor, p: Tensor, grad: Tensor, step: Tensor, *, kick: float, drift: bool
    ) -> None:
        ops.leapfrog_step(
            z, p, grad, step, inv_mass=self.inv_mass, kick=kick, drift=drift, backend=self.backend
        )
