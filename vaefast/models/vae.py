"""The VAE that everything in vaefast works on: q(z|x) = N(μ(x), diag σ(x)²), p(x|z), p(z)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vaefast.models import context as contexts
from vaefast.models import decoding, finite_model, first_batch, posterior, priors
from vaefast.models.calls import (
    as_event,
    check_event_shape,
    check_moments,
    images,
    lone_rows,
    to_model,
)
from vaefast.models.context import Context, call
from vaefast.models.encoders import GaussianEncoder, functions_of, require_module
from vaefast.models.likelihoods import (
    LikelihoodAt,
    check_dispersion,
    check_likelihood,
    check_pixels,
    keep,
    log_of_mean,
    resolve_decoder_output,
    to_pixels,
)
from vaefast.models.posterior import DiagonalGaussian
from vaefast.models.results import image
from vaefast.models.shapes import require_event, require_latents, with_hint
from vaefast.models.sigmoid import LogitDecoder

__all__ = ["VAE"]


class VAE(nn.Module):
    """A variational autoencoder with a diagonal Gaussian posterior, made of plain modules.

        q(z|x) = N(μ(x), diag σ(x)²),   p(x|z) = likelihood(decode(z)),   p(z) = N(0, I) or prior

    The modules are shared, not copied; they get copies of x [n, *event] and z [n, *latent_shape],
    in which they may write. Latents of any shape are [n, d] here, ``unflat`` gives them their own.
    Modules in half precision get x rounded to their dtype; results have x's dtype.

    Args:
        encoder_mean: module, [n, *event] to μ [n, d].
        encoder_logvar: module, [n, *event] to log σ² [n, d]; or a [d] tensor, σ independent of x.
        decoder: module, [n, d] to [n, *event] or [n, D].
        trunk: module that both encoder heads share and that is run once; they take its output.
        likelihood: "bernoulli", "gaussian", "continuous_bernoulli", "clamped_bernoulli"; of counts
            "negative_binomial" or "categorical" (one-hot over the last dimension), by autograd.
        obs_std: standard deviation of the Gaussian likelihood, pixel scale: a number (default 1)
            or a tensor, of no dimension, [D] or like one event.
        prior: None for N(0, I), else an object with ``log_prob(z [n, d]) -> [n]``, or a callable
            that is that function.
        dispersion: θ of the negative binomial, variance mean + mean²/θ: a number or a tensor [D] or
            like one event.
        decoder_output: what ``decoder`` returns. "logits" (the default) or "probabilities" for
            the Bernoulli likelihoods, "mean" (the default) or "mean_logvar" for the Gaussian.
            Probabilities become logits exactly where a final ``nn.Sigmoid`` is found, else by a
            clamped logit. A Gaussian decoder that returns two tensors is taken as (mean,
            log-variance) where neither this nor ``obs_std`` is given. "log_mean" (the default),
            "mean" or "mean_dispersion" (two tensors) for the negative binomial.
        event_shape: shape of one input; by default that of the last x that was encoded.

    Raises:
        TypeError: an argument is no module, no number or no prior.
        ValueError: an unknown name, obs_std ≤ 0, or a log-variance that is not [d] and finite.
    """

    def __init__(
        self,
        *,
        encoder_mean: nn.Module,
        encoder_logvar: nn.Module | Tensor,
        decoder: nn.Module,
        trunk: nn.Module | None = None,
        likelihood: str = "bernoulli",
        obs_std: float | Tensor | None = None,
        prior: Any = None,
        decoder_output: str | None = None,
        event_shape: Sequence[int] | None = None,
        dispersion: float | Tensor | None = None,
    ) -> None:
        super().__init__()
        encoder = GaussianEncoder(encoder_mean, encoder_logvar, trunk)
        own = likelihood, obs_std, prior, decoder_output, event_shape
        self._assemble(encoder, decoder, *own, dispersion=dispersion)

    def _assemble(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        likelihood: str,
        obs_std: float | Tensor | None,
        prior: Any,
        decoder_output: str | None,
        event_shape: Sequence[int] | None,
        encoder_output: str | None = None,
        dispersion: float | Tensor | None = None,
    ) -> None:
        self.encoder = encoder
        self.decoder = require_module(decoder, "decoder")
        self.likelihood, std = check_likelihood(likelihood, obs_std)
        keep(self, "_obs_std", std)
        self.prior = priors.check_prior(prior)
        self._pair_is_open = decoder_output is None and obs_std is None
        self.decoder_output = resolve_decoder_output(decoder_output, likelihood)
        keep(self, "_dispersion", check_dispersion(dispersion, likelihood, self.decoder_output))
        if self.decoder_output == "mean_logvar" and obs_std is not None:
            raise ValueError('obs_std must not be given with decoder_output "mean_logvar"')
        self.encoder_output = encoder_output or "logvar"
        self.event_shape = None if event_shape is None else check_event_shape(event_shape)
        self.latent_shape: tuple[int, ...] | None = None  # that of the last x that was encoded
        self.latent_dim: int | None = None
        self.box: tuple[float, float] | None = None  # of pixels, where the model's library says
        self._event_is_fixed = event_shape is not None
        self._doubts = first_batch.doubts(self, decoder_output, encoder_output)
        self.logit_decoder = LogitDecoder(self.decoder)
        if self.decoder_output == "logits" and self.logit_decoder.path is not None:
            warnings.warn(
                f"the decoder ends in a Sigmoid ({self.logit_decoder.path!r}) but its output is "
                'taken as logits; pass decoder_output="probabilities"',
                stacklevel=3,
            )

    @property
    def fixed_std(self) -> bool:
        """Whether σ is one vector for all x."""
        return isinstance(self.encoder, GaussianEncoder) and self.encoder.fixed_std

    @property
    def obs_std(self) -> Any:
        """Standard deviation of the Gaussian likelihood, a number or [D], pixel scale."""
        if self.decoder_output == "mean_logvar":
            raise RuntimeError("obs_std depends on z for this decoder; take vae.likelihood_at(z)")
        std = self._obs_std
        return std.detach().flatten() if isinstance(std, Tensor) else std

    @property
    def likelihood_params(self) -> tuple[float | Tensor, ...]:
        """What the likelihood takes besides decoder outputs: (obs_std,), (dispersion,) or ()."""
        theta = getattr(self, "_dispersion", None)
        if theta is None:
            return (self.obs_std,) if self.likelihood == "gaussian" else ()
        return (theta.detach().flatten() if isinstance(theta, Tensor) else theta,)

    def q(self, x: Tensor, context: Context = None) -> DiagonalGaussian:
        """q(z|x) of x [B, *event], latents flat [B, d].

        Args:
            context: None, a tensor [B, ...] or a dict of such, which the modules take beside x.

        Raises:
            TypeError: x is not floating or not of the model's dtype, the encoder does not return
                two floating tensors, or nothing takes the context.
            ValueError: x has another event shape than the model, is on another device, or the
                encoder's results are not [B, d] or [B, *latent_shape].
        """
        self._see_event(images(x))
        self._check_context(context, len(x))
        inputs = to_model(x, "x", self.encoder)
        mean, logvar = with_hint(lambda x: lone_rows(self._moments, x, context), inputs)
        if self.latent_shape != (shape := tuple(mean.shape[1:])):  # else the same object
            self.latent_shape, self.latent_dim = shape, math.prod(shape)
        mean, logvar = (t.flatten(1).to(x.dtype) for t in (mean, logvar))
        return DiagonalGaussian(mean, logvar, shape)

    def encode(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|x), each [B, d], for x [B, *event]; raises as :meth:`q`."""
        q = self.q(x, context)
        return q.mean, q.logvar

    def posterior(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(z|x), each [B, d], for x [B, *event]."""
        q = self.q(x, context)
        return q.mean, q.std

    def flat(self, z: Tensor) -> Tensor:
        """Latents [.., d] from [.., *latent_shape]."""
        return z if self.latent_shape is None else posterior.flat(z, self.latent_shape)

    def unflat(self, z: Tensor) -> Tensor:
        """Latents [.., *latent_shape] from [.., d]."""
        return z if self.latent_shape is None else posterior.unflat(z, self.latent_shape)

    def decode(self, z: Tensor, context: Context = None) -> Tensor:
        """Natural parameters of p(x|z): logits, or the Gaussian's mean.

        Args:
            z: [n, d] or [n, *latent_shape].
            context: None, a tensor [n, ...] or a dict of such.

        Returns:
            [n, *event]; as the decoder shapes it where the event shape is not known yet.

        Raises:
            TypeError: z is not floating or not of the model's dtype, or decode gives no tensor.
            ValueError: z is neither shape, or the output does not fit the event shape.
        """
        return self._decoded(z, context)[0]

    def likelihood_at(self, z: Tensor, context: Context = None) -> LikelihoodAt:
        """p(x|z) for z [n, d]: its name, natural parameters and what else it takes."""
        out, second = self._decoded(z, context)
        if second is None:
            return LikelihoodAt(self.likelihood, out, self.likelihood_params)
        own = second if self.decoder_output == "mean_dispersion" else torch.exp(0.5 * second)
        return LikelihoodAt(self.likelihood, out, (own.flatten(1),))

    def log_likelihood(self, x: Tensor, z: Tensor, context: Context = None) -> Tensor:
        """log p(x|z) [n] float64 in nats, differentiable in z.

        Args:
            x: [B, *event], in [0, 1] but for the Gaussian.
            z: [n, d] with n = B·C; row i belongs to x[i // C].
            context: of the rows of z.

        Raises:
            ValueError: pixels outside of [0, 1], unless the likelihood is Gaussian.
        """
        check_pixels(images(x), self.likelihood)
        return self.likelihood_at(z, context).log_prob(x)

    def g(self, z: Tensor, context: Context = None) -> Tensor:
        """The reconstruction of z [n, d] in pixel scale, [n, *event].

        Equivalent to: ``torch.sigmoid(vae.decode(z))``, or ``vae.decode(z)`` for the Gaussian.
        """
        return to_pixels(self.decode(z, context), self.likelihood)

    def reconstruct(self, x: Tensor, context: Context = None) -> Tensor:
        """g(μ(x)) in pixel scale, in the shape of x [B, *event]."""
        return self.g(self.encode(x, context)[0], context)

    def log_prior(self, z: Tensor, context: Context = None) -> Tensor:
        """log p(z) [n] float64 in nats, for z [n, d] or [n, *latent_shape].

        Raises ValueError where the prior does not return [n].
        """
        return priors.log_prior(self.prior, self.flat(z), context)

    def check_first_batch(
        self, x: Tensor, context: Context = None, moments: tuple[Tensor, Tensor] | None = None
    ) -> None:
        """Warn, once per VAE, where outputs on the first rows contradict what they are taken for.

        x [B, *event] are real inputs, ``moments`` those of the first two rows where they are known;
        the model is in eval mode. Raises ValueError where NaN weights make the moments NaN.
        """
        finite_model.check_outputs(self, *(moments or ()))
        if self._doubts and len(x):
            doubts, self._doubts = self._doubts, ()
            first_batch.check(self, x, context, doubts, moments)

    def _moments(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        return check_moments(call(self.encoder, x.clone(), context), len(x))

    def _decoded(self, z: Tensor, context: Context) -> tuple[Tensor, Tensor | None]:
        """Natural parameters and, where the decoder has a second head, what it gives."""
        require_latents(z, self.latent_shape, self.latent_dim)
        contexts.check(context, len(z))
        inputs = to_model(self.unflat(self.flat(z)), "z", self.decoder)
        out, second = lone_rows(self._heads, inputs, context)
        return out.to(z.dtype), None if second is None else second.to(z.dtype)

    def _heads(self, z: Tensor, context: Context) -> tuple[Tensor, Tensor | None]:
        if self.decoder_output == "probabilities":
            out = self.logit_decoder(self.decoder, z.clone(), context)
            return as_event(out, len(z), self.event_shape), None
        heads = self.likelihood == "gaussian" or self.decoder_output == "mean_dispersion"
        result = image(call(self.decoder, z.clone(), context), pair=heads)
        pair = decoding.as_pair(result, self.decoder_output, self._pair_is_open)
        mean = as_event(pair[0], len(z), self.event_shape)
        if self.likelihood == "negative_binomial" and self.decoder_output != "log_mean":
            mean = log_of_mean(mean)
        if pair[1] is None:
            return mean, None
        if self.likelihood == "gaussian":
            self.decoder_output = "mean_logvar"
        return mean, decoding.like_mean(pair[1], mean)

    def _check_context(self, context: Context, rows: int) -> None:
        if contexts.check(context, rows) is not None:
            functions = [*functions_of(self.encoder), *functions_of(self.decoder)]
            prior = [] if self.prior is None else [priors.density(self.prior)]
            contexts.require_taker([*functions, *prior], context)

    def _see_event(self, x: Tensor) -> None:
        if self._event_is_fixed:
            require_event(x, self.event_shape)
        elif self.event_shape != (shape := tuple(x.shape[1:])):  # else the same object
            self.event_shape = shape
