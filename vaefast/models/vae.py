"""The VAE that everything in vaefast works on: q(z|x) = N(μ(x), diag σ(x)²), p(x|z), p(z)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vaefast import checks
from vaefast.models.calls import as_event, check_event_shape, check_moments, listed, to_model
from vaefast.models.encoders import DecodeMethod, EncodeMethod, GaussianEncoder, require_module
from vaefast.models.likelihoods import check_likelihood, resolve_decoder_output, to_pixels
from vaefast.models.sigmoid import LogitDecoder

__all__ = ["VAE", "as_vae"]


class VAE(nn.Module):
    """A variational autoencoder with a diagonal Gaussian posterior, made of plain modules.

        q(z|x) = N(μ(x), diag σ(x)²),   p(x|z) = likelihood(decode(z)),   p(z) = N(0, I) or prior

    The modules are shared, not copied; they are called with [n, *event] and [n, d]. Modules in
    half precision are called with x rounded to their dtype; results have x's dtype.

    Args:
        encoder_mean: module, [n, *event] to μ [n, d].
        encoder_logvar: module, [n, *event] to log σ² [n, d]; or a [d] tensor, σ independent of x.
        decoder: module, [n, d] to [n, *event] or [n, D].
        trunk: module that both encoder heads share and that is run once; they take its output.
        likelihood: "bernoulli", "gaussian", "continuous_bernoulli" or "clamped_bernoulli".
        obs_std: standard deviation of the Gaussian likelihood, pixel scale.
        prior: None for N(0, I), else an object with ``log_prob(z [n, d]) -> [n]``, or a callable
            that is that function.
        decoder_output: what ``decoder`` returns. "logits" (the default) or "probabilities" for
            the Bernoulli likelihoods, "mean" (the default) for the Gaussian. Probabilities become
            logits exactly where a final ``nn.Sigmoid`` is found, else by a clamped logit.
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
        obs_std: float = 1.0,
        prior: Any = None,
        decoder_output: str | None = None,
        event_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        encoder = GaussianEncoder(encoder_mean, encoder_logvar, trunk)
        self._assemble(encoder, decoder, likelihood, obs_std, prior, decoder_output, event_shape)

    def _assemble(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        likelihood: str,
        obs_std: float,
        prior: Any,
        decoder_output: str | None,
        event_shape: Sequence[int] | None,
    ) -> None:
        self.encoder = encoder
        self.decoder = require_module(decoder, "decoder")
        self.likelihood, self.obs_std = check_likelihood(likelihood, obs_std)
        self.prior = _check_prior(prior)
        self.decoder_output = resolve_decoder_output(decoder_output, likelihood)
        self.event_shape = None if event_shape is None else check_event_shape(event_shape)
        self.latent_dim: int | None = None  # that of the last x that was encoded
        self._event_is_fixed = event_shape is not None
        self.logit_decoder = LogitDecoder(self.decoder)
        if self.decoder_output == "logits" and self.logit_decoder.path is not None:
            warnings.warn(
                f"the decoder ends in a Sigmoid ({self.logit_decoder.path!r}) but its output is "
                'taken as logits; pass decoder_output="probabilities"',
                stacklevel=3,
            )

    @property
    def likelihood_params(self) -> list[float]:
        """What the ops take beside the likelihood's name: a Gaussian's [obs_std], else nothing."""
        return [self.obs_std] if self.likelihood == "gaussian" else []

    @property
    def fixed_std(self) -> bool:
        """Whether σ is one vector for all x."""
        return isinstance(self.encoder, GaussianEncoder) and self.encoder.fixed_std

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|x), each [B, d], for x [B, *event].

        Raises:
            TypeError: x is not floating or not of the model's dtype, or the encoder does not
                return two floating tensors.
            ValueError: x has another event shape than the model, is on another device, or the
                encoder's results are not [B, d].
        """
        self._see_event(checks.batch(x))
        mean, logvar = check_moments(self.encoder(to_model(x, "x", self.encoder)), len(x))
        self.latent_dim = mean.shape[1]
        return mean.to(x.dtype), logvar.to(x.dtype)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(z|x), each [B, d], for x [B, *event]."""
        mean, logvar = self.encode(x)
        return mean, torch.exp(0.5 * logvar)

    def decode(self, z: Tensor) -> Tensor:
        """Natural parameters of p(x|z) for z [n, d]: logits, or the Gaussian's mean.

        Returns:
            [n, *event]; as the decoder shapes it where the event shape is not known yet.

        Raises:
            TypeError: z is not floating or not of the model's dtype, or decode gives no tensor.
            ValueError: z is not [n, d], or the output does not fit the event shape.
        """
        self._check_latents(z)
        inputs = to_model(z, "z", self.decoder)
        if self.decoder_output == "probabilities":
            out = self.logit_decoder(self.decoder, inputs)
        else:
            out = self.decoder(inputs)
        return as_event(out, len(z), self.event_shape).to(z.dtype)

    def g(self, z: Tensor) -> Tensor:
        """The reconstruction of z [n, d] in pixel scale, [n, *event].

        Equivalent to: ``torch.sigmoid(vae.decode(z))``, or ``vae.decode(z)`` for the Gaussian.
        """
        return to_pixels(self.decode(z), self.likelihood)

    def reconstruct(self, x: Tensor) -> Tensor:
        """g(μ(x)) in pixel scale, in the shape of x [B, *event]."""
        return self.g(self.encode(x)[0])

    def log_prior(self, z: Tensor) -> Tensor:
        """log p(z) [n] float64 in nats, for z [n, d].

        Raises:
            ValueError: the prior does not return [n].
        """
        if self.prior is None:
            constant = 0.5 * z.shape[1] * math.log(2.0 * math.pi)
            return -0.5 * z.double().square().sum(dim=1) - constant
        log_prob = getattr(self.prior, "log_prob", self.prior)(z)
        if list(log_prob.shape) != [len(z)]:
            raise ValueError(
                f"prior must give log p(z) as [n] = [{len(z)}], got {list(log_prob.shape)}; "
                "sum over the latents (torch.distributions.Independent does)"
            )
        return log_prob.double()

    def _see_event(self, x: Tensor) -> None:
        if not self._event_is_fixed:
            self.event_shape = tuple(x.shape[1:])
        elif tuple(x.shape[1:]) != self.event_shape:
            raise ValueError(
                f"x must be [B, {listed(self.event_shape)}] for this model, got {list(x.shape)}"
            )

    def _check_latents(self, z: Tensor) -> None:
        checks.batch(z, "z")
        width = self.latent_dim or "d"
        if z.ndim != 2 or z.shape[1] != (self.latent_dim or z.shape[1]):
            raise ValueError(f"z must be [n, {width}], got {list(z.shape)}")


class _ModuleVAE(VAE):
    """A VAE around a module with encode(x) and decode(z)."""

    def __init__(self, module: nn.Module, **options: Any) -> None:
        nn.Module.__init__(self)
        decode = module.decode
        decoder = decode if isinstance(decode, nn.Module) else DecodeMethod(module)
        self._assemble(EncodeMethod(module), decoder, **options)


def as_vae(
    module: nn.Module,
    *,
    likelihood: str | None = None,
    obs_std: float | None = None,
    prior: Any = None,
    decoder_output: str | None = None,
    event_shape: Sequence[int] | None = None,
) -> VAE:
    """A :class:`VAE` around any module with ``encode(x) -> (mean, logvar)`` and ``decode(z)``.

    Args:
        module: is shared, not copied. ``encode`` maps [n, *event] to two tensors [n, d];
            ``decode`` maps [n, d] to [n, *event] or [n, D]. A VAE is returned as it is.
        likelihood: as for :class:`VAE`; by default "bernoulli", or that of a VAE that is given.
        obs_std: as for :class:`VAE`; by default 1.0, or that of a VAE that is given.
        prior, decoder_output, event_shape: as for :class:`VAE`.

    Raises:
        TypeError: ``module`` is no ``nn.Module`` or lacks a method.
        ValueError: as for :class:`VAE`, or the options contradict a VAE that is given.
    """
    options: dict[str, Any] = {
        "likelihood": likelihood,
        "obs_std": obs_std,
        "prior": prior,
        "decoder_output": decoder_output,
        "event_shape": None if event_shape is None else check_event_shape(event_shape),
    }
    given = {name: value for name, value in options.items() if value is not None}
    if isinstance(module, VAE):
        _check_agreement(module, given)
        return module
    require_module(module, "module")
    missing = [name for name in ("encode", "decode") if not callable(getattr(module, name, None))]
    if missing:
        raise TypeError(
            f"module must have encode(x) -> (mean, logvar) and decode(z), {type(module).__name__} "
            f"lacks {' and '.join(missing)}; build vaefast.VAE(encoder_mean=, encoder_logvar=, "
            "decoder=) from its parts"
        )
    return _ModuleVAE(module, **(options | {"likelihood": "bernoulli", "obs_std": 1.0} | given))


def _check_agreement(vae: VAE, given: dict[str, Any]) -> None:
    """No option that was given contradicts the VAE."""
    for name, value in given.items():
        if value != getattr(vae, name):
            raise ValueError(
                f"module is a VAE with {name} {getattr(vae, name)!r} already, got {value!r}"
            )


def _check_prior(prior: Any) -> Any:
    if prior is None or callable(getattr(prior, "log_prob", None)) or callable(prior):
        return prior
    raise TypeError(
        f"prior must be None for N(0, I), have log_prob(z) -> [n] or be that function, "
        f"got {type(prior).__name__}"
    )
