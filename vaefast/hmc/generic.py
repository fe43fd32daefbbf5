"""The potential of any decoder and prior, and how chains move in it, as functions of tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from vaefast import ops
from vaefast.functional.hmc import Draws, State, transition
from vaefast.models.context import Context
from vaefast.models.vae import VAE
from vaefast.runtime import numerics

__all__ = ["MEMORY_FORMATS", "CapturableTransition", "Potential", "Trajectory"]

MEMORY_FORMATS = ("contiguous", "channels_last")
NO_GRADIENT = (
    "the decoder's output or the prior carries no gradient to z; "
    "remove detach() or torch.no_grad() from decode and log_prob"
)


_swapping = Lock()  # one thread at a time may exchange a decoder's weights for the copies


class Decoding(NamedTuple):
    """z ↦ natural parameters, and the context that it and the prior take."""

    decode: Callable[..., Tensor]
    context: Context  # of the chains

    @property
    def given(self) -> dict[str, Any]:
        """What the VAE's methods take beside z."""
        return {} if self.context is None else {"context": self.context}

    def __call__(self, z: Tensor) -> Tensor:
        return self.decode(z, **self.given)


class _Terms(NamedTuple):
    logp: Tensor  # [N] float64, log p(x|z)
    log_prior: Tensor  # [N] float64
    grad: Tensor  # [N, d] of U; NaN where z is not finite
    finite: Tensor  # [N] bool, z is finite


@dataclass(frozen=True)
class Potential:
    """U(z) = −log p(x|z) − log p(z) through autograd, the fused likelihood in its middle.

    Args:
        precision: of the products that make a rounded gradient.
        memory_format: of the decoder's convolutions, one of MEMORY_FORMATS; with "channels_last"
            they take copies of the weights in that layout.
        names: of the tensors of a context that is a dict.
    """

    vae: VAE
    likelihood: str
    backend: str | None
    precision: str = "ieee"
    memory_format: str = "contiguous"
    names: tuple[str, ...] | None = None

    def decoding(self, *context: Tensor) -> Decoding:
        """The decoder with the weights as they are now, and the context's tensors."""
        given: Context = context[0] if context else None
        if self.names is not None:
            given = dict(zip(self.names, context, strict=True))
        if self.memory_format == "contiguous":
            return Decoding(self.vae.decode, given)
        weights = {
            f"vae.decoder.{name}": t.detach().contiguous(memory_format=torch.channels_last)
            for name, t in self.vae.decoder.named_parameters()
            if t.ndim == 4
        }
        decoder = _Decoder(self.vae)

        # tie_weights would leave a module that is in two places with the copies for good
        def decode(z: Tensor, **given: Any) -> Tensor:
            with _swapping:
                return functional_call(decoder, weights, (z,), given, tie_weights=False)

        return Decoding(decode, given)

    def exact(self, z: Tensor, x: Tensor, decode: Decoding) -> tuple[Tensor, Tensor]:
        """U [N] float64 in nats and its gradient [N, d], both in full precision."""
        terms = self._terms(z, x, decode, "ieee")
        U = -terms.logp - terms.log_prior
        return U.masked_fill(~terms.finite, torch.nan), terms.grad

    def rounded(self, z: Tensor, x: Tensor, decode: Decoding) -> Tensor:
        """The gradient [N, d] in ``precision``: a function of z, but not that of U."""
        return self._terms(z, x, decode, self.precision).grad

    def _terms(self, z: Tensor, x: Tensor, decode: Decoding, precision: str) -> _Terms:
        device = z.device
        finite = torch.isfinite(z).all(1)  # no module or prior of the user's is given NaN
        bad = ~finite[:, None]
        with numerics.products(device, precision), numerics.one_kernel(device):
            with torch.enable_grad():
                z = z.masked_fill(bad, 0.0).requires_grad_()
                with numerics.autocast(device, precision):
                    out = self._at(z, x, decode)
                log_prior = self.vae.log_prior(z, **decode.given)  # [N] float64
            if not (out.requires_grad and log_prior.requires_grad):
                raise RuntimeError(NO_GRADIENT)
            logp, dlogp_dout = self._likelihood(out.detach(), x)
            outer = [-dlogp_dout, torch.full_like(log_prior, -1.0)]
            (grad,) = torch.autograd.grad([out, log_prior], z, outer)
        return _Terms(logp, log_prior.detach(), grad.masked_fill(bad, torch.nan), finite)

    def _at(self, z: Tensor, x: Tensor, decode: Decoding) -> Tensor:
        """Natural parameters [N, D] at z, or log p(x|z) [N] where more than those depends on z."""
        if self._fused:
            return decode(z).flatten(1)
        return self.vae.likelihood_at(z, **decode.given).log_prob(x)

    @torch.no_grad()
    def _likelihood(self, out: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """log p(x|z) [N] float64 and its derivative in ``out``."""
        if not self._fused:
            return out, torch.ones_like(out)
        return ops.log_likelihood(
            out,
            x,
            likelihood=self.likelihood,
            likelihood_params=self.vae.likelihood_params,
            backend=self.backend,
        )

    @property
    def _fused(self) -> bool:
        """Whether natural parameters are all that the decoder gives; else it has a second head."""
        return self.vae.decoder_output != "mean_logvar"


@dataclass(frozen=True)
class Trajectory:
    """L leapfrogs: the gradients at both ends are exact, those between them may be rounded.

    The kicks so form a palindrome, and the chain leaves the posterior exactly invariant
    (mathematics.md §10); both energies are values of one function.
    """

    potential: Potential
    leapfrog: int

    def __call__(
        self,
        z: Tensor,
        p: Tensor,
        grad: Tensor,
        step: Tensor,
        x: Tensor,
        inv_mass: Tensor | None,
        *context: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The end's z, p, gradient and U, from z, p and the exact gradient at z, each [N, d]."""
        z, p = z.clone(), p.clone()
        decode = self.potential.decoding(*context)

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
class CapturableTransition:
    """One HMC transition as a pure function of tensors.

    The transition index is a tensor too, so one CUDA-graph capture serves every step.
    """

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
        *context: Tensor,
    ) -> tuple[Tensor, ...]:
        """The fields of the new State and of the Info; t is int64 []."""

        def trajectory(
            z: Tensor, p: Tensor, grad: Tensor, step: Tensor
        ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            return self.trajectory(z, p, grad, step, x, inv_mass, *context)

        noise = Draws(index, self.seed, self.jitter).noise(z, t)
        state, info = transition(
            State(z, U, grad), trajectory, step=step, inv_mass=inv_mass, noise=noise
        )
        return *state, *info


class _Decoder(nn.Module):
    """``vae.decode`` as a module, so that it can be called with other weights."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, z: Tensor, **given: Any) -> Tensor:
        return self.vae.decode(z, **given)
