"""The potential U(z) of any decoder and any prior, by autograd."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vaefast import ops
from vaefast.functional.counts import COUNTS
from vaefast.functional.priors import prior_energy, prior_gradient
from vaefast.hmc.refusals import OUT_OF_MEMORY, refused
from vaefast.models.calls import as_event
from vaefast.models.context import Context
from vaefast.models.forms import Forms
from vaefast.models.likelihoods import LikelihoodAt
from vaefast.models.mixture import Components
from vaefast.models.vae import VAE
from vaefast.runtime import numerics
from vaefast.types import Network

__all__ = ["Potential", "is_standard"]

SECOND_HEADS = ("mean_logvar", "mean_dispersion", "joint")  # more than out depends on z
DECODE, PRIOR = "decode(z)", "the prior's log_prob"
DETACHED = (
    "{0} changes with z but carries no gradient to z; "
    "remove detach() or torch.no_grad() from it, and make its result from z by torch functions"
)
NUDGE = 1e-3  # relative, of z: where an output without gradient is looked at once more


class Decoding(NamedTuple):
    """z ↦ natural parameters, and the context that it and the prior take."""

    forms: Forms  # of the decoder
    context: Context  # of the chains

    @property
    def given(self) -> dict[str, Any]:
        """What the VAE's methods take beside z."""
        return {} if self.context is None else {"context": self.context}

    def __call__(self, z: Tensor) -> Tensor:
        return self.forms.decode(z, self.context)

    def log_prob(self, z: Tensor, x: Tensor) -> Tensor:
        """log p(x|z) [N] float64, where more than the natural parameters depends on z."""
        return self.forms.likelihood_at(z, self.context).log_prob(x)


class _Terms(NamedTuple):
    logp: Tensor  # [N] float64, log p(x|z)
    log_prior: Tensor | None  # [N] float64; None for N(0, I)
    grad: Tensor  # [N, d] of U
    constant: tuple[str, ...]  # what carries no gradient to z, so that it counts as 0


@dataclass(frozen=True)
class Potential:
    """U(z) = −log p(x|z) − log p(z) through autograd, the fused likelihood in its middle.

    Args:
        precision: of the products that make a rounded gradient.
        forms: of the decoder, in which it runs.
        captured: whether it may become part of a graph, so that no value of a tensor may be read.
        names: of the tensors of a context that is a dict.
        net: the decoder as a network, from which one fused op gives likelihood and gradient, or
            of counts the network's output and its product with the likelihood's slope, so that
            autograd is left with the prior; None: autograd goes through both.
        prior: what stands for the VAE's own prior and costs less; None: that prior.
    """

    forms: Forms
    likelihood: str
    backend: str | None
    precision: str = "ieee"
    names: tuple[str, ...] | None = None
    captured: bool = False
    net: Network | None = None
    prior: Components | None = None

    @property
    def vae(self) -> VAE:
        return self.forms.vae

    def decoding(self, *context: Tensor) -> Decoding:
        """The decoder, and the context's tensors."""
        given: Context = context[0] if context else None
        if self.names is not None:
            given = dict(zip(self.names, context, strict=True))
        return Decoding(self.forms, given)

    def exact(
        self, z: Tensor, x: Tensor, decode: Decoding, safe: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """U [N] float64 in nats and its gradient [N, d], both in full precision.

        NaN where z is not finite, and where the model raises at z although it does not at
        ``safe`` [N, d].

        Raises:
            RuntimeError: without ``safe``, as at the start: a term changes with z and carries no
                gradient to it.
            Exception: without ``safe``, what the model raises.
        """
        terms, usable = self._usable(z, x, decode, "ieee", safe)
        if terms.constant and safe is None:
            self._require_constant(terms.constant, _zero_unless(usable, z), decode)
        if terms.log_prior is None:
            U = prior_energy(_zero_unless(usable, z).double()) - terms.logp
        else:
            U = -terms.logp - terms.log_prior
        if usable is not None:
            U = U.masked_fill(~usable, torch.nan)
        return U, _nan_unless(usable, terms.grad)

    def rounded(self, z: Tensor, x: Tensor, decode: Decoding, safe: Tensor) -> Tensor:
        """The gradient [N, d] in ``precision``: a function of z, but not that of U."""
        terms, usable = self._usable(z, x, decode, self.precision, safe, energy=False)
        return _nan_unless(usable, terms.grad)

    def _require_constant(self, names: tuple[str, ...], z: Tensor, decode: Decoding) -> None:
        """Refuse a decoder or prior that was cut from the graph; flat and constant ones pass.

        Only if every row changes, so that a prior may be constant piece by piece.
        """
        nudged = z + NUDGE * (1.0 + z.abs())
        for name in names:
            value, other = (self._value(name, at, decode).flatten(1) for at in (z, nudged))
            changed = (value != other) & torch.isfinite(value) & torch.isfinite(other)
            if len(z) and bool(changed.any(1).all()):
                raise RuntimeError(DETACHED.format(name))

    @torch.no_grad()
    def _value(self, name: str, z: Tensor, decode: Decoding) -> Tensor:
        if name == DECODE:
            return decode(z)
        return self.vae.log_prior(z, **decode.given).unsqueeze(1)

    def _usable(
        self,
        z: Tensor,
        x: Tensor,
        decode: Decoding,
        precision: str,
        safe: Tensor | None,
        energy: bool = True,
    ) -> tuple[_Terms, Tensor | None]:
        """The terms, and the rows [N] bool for which they mean something; None for all."""
        all_finite = not self.captured and math.isfinite(z.sum().item())
        usable = None if all_finite else torch.isfinite(z).all(1)
        z = _zero_unless(usable, z)  # no module or prior of the user's is given NaN
        try:
            return self._terms(z, x, decode, precision, energy), usable
        except OUT_OF_MEMORY:
            raise
        except Exception:
            if safe is None:
                raise
        safe = safe.nan_to_num(0.0, 0.0, 0.0)
        accepted = ~refused(lambda at: self._terms(at, x, decode, precision), z, safe)
        usable = accepted if usable is None else usable & accepted
        z = torch.where(usable[:, None], z, safe)
        return self._terms(z, x, decode, precision, energy), usable

    def _terms(
        self, z: Tensor, x: Tensor, decode: Decoding, precision: str, energy: bool = True
    ) -> _Terms:
        device, log_prior = z.device, None
        if self.net is not None and self.likelihood not in COUNTS:
            return self._beside(self.net, z, x, decode, precision)
        with numerics.of_module(device, precision):
            with torch.enable_grad():
                z = z.detach().requires_grad_()
                with numerics.autocast(device, precision):
                    out = self._at(z, x, decode, precision)
            logp, slope = self._likelihood(out.detach(), x, energy)
            pulled = _gradient(out, z, slope)
            constant: tuple[str, ...] = (DECODE,) if pulled is None else ()
            z = z.detach()
            if is_standard(self.vae):
                grad = prior_gradient(z)
            else:
                log_prior, pulled_prior = self._prior(z, decode)
                constant += (PRIOR,) if pulled_prior is None else ()
                grad = torch.zeros_like(z) if pulled_prior is None else -pulled_prior
        return _Terms(logp, log_prior, grad if pulled is None else grad - pulled, constant)

    def _beside(
        self, net: Network, z: Tensor, x: Tensor, decode: Decoding, precision: str
    ) -> _Terms:
        """The terms with the likelihood's from the fused potential, which has N(0, I) in it."""
        U, grad = ops.net_potential(
            z,
            x,
            net,
            likelihood=self.likelihood,
            likelihood_params=self.vae.likelihood_params,
            precision=precision,
            backend=self.backend,
        )
        logp, grad = prior_energy(z) - U, grad - prior_gradient(z)
        log_prior, pulled = self._prior(z, decode)
        constant: tuple[str, ...] = (PRIOR,) if pulled is None else ()
        return _Terms(logp, log_prior, grad if pulled is None else grad - pulled, constant)

    def _prior(self, z: Tensor, decode: Decoding) -> tuple[Tensor, Tensor | None]:
        """log p(z) [N] float64 and its gradient."""
        if self.prior is not None:
            return self.prior.log_prob_and_gradient(z)
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            log_prior = self.vae.log_prior(z, **decode.given)
        return log_prior.detach(), _gradient(log_prior, z, torch.ones_like(log_prior))

    def _at(self, z: Tensor, x: Tensor, decode: Decoding, precision: str) -> Tensor:
        """Natural parameters [N, ...] at z, or log p(x|z) [N] where more depends on z."""
        if self.vae.decoder_output in SECOND_HEADS:
            return decode.log_prob(z, x)
        if self.net is None:
            return decode(z)
        out = ops.net_forward(z, self.net, precision=precision, backend=self.backend)
        return as_event(out, len(z), self.vae.event_shape)

    def _likelihood(self, out: Tensor, x: Tensor, energy: bool) -> tuple[Tensor, Tensor]:
        """log p(x|z) [N] float64 and its derivative in ``out``; anything for the first without
        ``energy``, as that of counts costs as much as a small decoder.
        """
        if self.vae.decoder_output in SECOND_HEADS:
            return out, torch.ones_like(out)
        if self.likelihood in COUNTS:
            law = LikelihoodAt(self.likelihood, out, self.vae.likelihood_params)
            logp = law.log_prob(x) if energy else out.new_zeros(len(out), dtype=torch.float64)
            return logp, law.slope_of_counts(x)
        logp, slope = ops.log_likelihood(
            out.flatten(1),
            x,
            likelihood=self.likelihood,
            likelihood_params=self.vae.likelihood_params,
            backend=self.backend,
        )
        return logp, slope.view(out.shape)


def is_standard(vae: VAE) -> bool:
    """Whether the prior is N(0, I): none was given, and no subclass has a density of its own."""
    return vae.prior is None and type(vae).log_prior is VAE.log_prior


def _gradient(out: Tensor, z: Tensor, outer: Tensor) -> Tensor | None:
    """outerᵀ ∂out/∂z [N, d], or None where ``out`` is not made from z."""
    if not out.requires_grad:
        return None
    (grad,) = torch.autograd.grad(out, z, outer, allow_unused=True)
    return grad


def _zero_unless(usable: Tensor | None, z: Tensor) -> Tensor:
    return z if usable is None else z.masked_fill(~usable[:, None], 0.0)


def _nan_unless(usable: Tensor | None, values: Tensor) -> Tensor:
    return values if usable is None else values.masked_fill(~usable[:, None], torch.nan)
