"""The potential of any decoder and prior, and how chains move in it, as functions of tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from vaefast import ops
from vaefast.functional.transition import transition
from vaefast.models.vae import VAE
from vaefast.runtime import numerics

__all__ = ["MEMORY_FORMATS", "Move", "Potential", "Trajectory"]

MEMORY_FORMATS = ("contiguous", "channels_last")
NO_GRADIENT = (
    "the decoder's output or the prior carries no gradient to z; "
    "remove detach() or torch.no_grad() from decode and log_prob"
)

Decode = Callable[[Tensor], Tensor]

_swapping = Lock()  # one thread at a time may exchange a decoder's weights for the copies


class _Terms(NamedTuple):
    logp: Tensor  # [N] float64, log p(x|z)
    log_prior: Tensor  # [N] float64
    grad: Tensor  # [N, d] of U; NaN in the rows that are not good
    good: Tensor  # [N] bool, z is finite


@dataclass(frozen=True)
class Potential:
    """U(z) = −log p(x|z) − log p(z) through autograd, the fused likelihood in its middle.

    Args:
        precision: of the products that make a rounded gradient.
        memory_format: of the decoder's convolutions, one of MEMORY_FORMATS; with "channels_last"
            they take copies of the weights in that layout.
    """

    vae: VAE
    likelihood: str
    backend: str | None
    precision: str = "ieee"
    memory_format: str = "contiguous"

    def decoding(self) -> Decode:
        """z ↦ natural parameters, with the weights as they are now."""
        if self.memory_format == "contiguous":
            return self.vae.decode
        weights = {
            f"vae.decoder.{name}": t.detach().contiguous(memory_format=torch.channels_last)
            for name, t in self.vae.decoder.named_parameters()
            if t.ndim == 4
        }
        decoder = _Decoder(self.vae)

        # tie_weights would leave a module that is in two places with the copies for good
        def decode(z: Tensor) -> Tensor:
            with _swapping:
                return functional_call(decoder, weights, (z,), tie_weights=False)

        return decode

    def exact(self, z: Tensor, x: Tensor, decode: Decode) -> tuple[Tensor, Tensor]:
        """U [N] float64 in nats and its gradient [N, d], both in full precision."""
        terms = self._terms(z, x, decode, "ieee")
        U = -terms.logp - terms.log_prior
        return U.masked_fill(~terms.good, torch.nan), terms.grad

    def rounded(self, z: Tensor, x: Tensor, decode: Decode) -> Tensor:
        """The gradient [N, d] in ``precision``: a function of z, but not that of U."""
        return self._terms(z, x, decode, self.precision).grad

    def _terms(self, z: Tensor, x: Tensor, decode: Decode, precision: str) -> _Terms:
        device = z.device
        good = torch.isfinite(z).all(1)  # no module or prior of the user's sees NaN
        with numerics.products(device, precision), numerics.one_kernel(device):
            with torch.enable_grad():
                z = z.masked_fill(~good[:, None], 0.0).requires_grad_()
                with numerics.autocast(device, precision):
                    out = decode(z).flatten(1)  # [N, D]
                log_prior = self.vae.log_prior(z)  # [N] float64
            if not (out.requires_grad and log_prior.requires_grad):
                raise RuntimeError(NO_GRADIENT)
            logp, dlogp_dout = self._likelihood(out.detach(), x)
            outer = [-dlogp_dout, torch.full_like(log_prior, -1.0)]
            (grad,) = torch.autograd.grad([out, log_prior], z, outer)
        return _Terms(logp, log_prior.detach(), grad.masked_fill(~good[:, None], torch.nan), good)

    @torch.no_grad()
    def _likelihood(self, out: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return ops.log_likelihood(
            out,
            x,
            likelihood=self.likelihood,
            likelihood_params=self.vae.likelihood_params,
            backend=self.backend,
        )


@dataclass(frozen=True)
class Trajectory:
    """L leapfrogs: the gradients at both ends are exact, those between them may be rounded.

    The kicks so form a palindrome, and the chain leaves the posterior exactly invariant
    (mathematics.md §10); both energies are values of one function.
    """

    potential: Potential
    leapfrog: int

    def __call__(
        self, z: Tensor, p: Tensor, grad: Tensor, step: Tensor, x: Tensor, inv_mass: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The end's z, p, gradient and U, from z, p and the exact gradient at z, each [N, d]."""
        z, p = z.clone(), p.clone()
        decode = self.potential.decoding()

        def leap(grad: Tensor, kick: float, drift: bool) -> None:
            ops.leapfrog_step(
                z,
                p,
                grad,
                step,
                inv_mass=inv_mass,
                kick=kick,
                drift=drift,
                backend=self.potential.backend,
            )

        leap(grad, 0.5, True)
        for _ in range(self.leapfrog - 1):
            leap(self.potential.rounded(z, x, decode), 1.0, True)
        U, grad = self.potential.exact(z, x, decode)
        leap(grad, 0.5, False)
        return z, p, grad, U


@dataclass(frozen=True)
class Move:
    """A whole transition: its number is a tensor, so that all of them are one function."""

    trajectory: Trajectory
    jitter: float
    seed: int

    def __call__(
        self,
        z: Tensor,
        U: Tensor,
        grad: Tensor,
        step: Tensor,
        x: Tensor,
        inv_mass: Tensor | None,
        index: Tensor,
        t: Tensor,
    ) -> tuple[Tensor, ...]:
        """The fields of a Transition from (z, U, grad); t is int64 []."""

        def trajectory(
            z: Tensor, p: Tensor, grad: Tensor, step: Tensor
        ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            return self.trajectory(z, p, grad, step, x, inv_mass)

        return transition(
            trajectory,
            z,
            U,
            grad,
            step=step,
            inv_mass=inv_mass,
            jitter=self.jitter,
            seed=self.seed,
            index=index,
            t=t,
        )


class _Decoder(nn.Module):
    """``vae.decode`` as a module, so that it can be called with other weights."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, z: Tensor) -> Tensor:
        return self.vae.decode(z)
