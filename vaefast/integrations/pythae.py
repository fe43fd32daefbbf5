"""pythae 0.1: every model whose posterior is a diagonal Gaussian.

``encoder(x)`` has ``.embedding`` and ``.log_covariance``, ``decoder(z)`` has ``.reconstruction``.
Its loss with "mse" is half the sum of squares, the Gaussian with obs_std 1 less a constant; with
"bce" the reconstruction holds probabilities.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaefast.models.adapters import Adapter, is_from
from vaefast.models.encoders import DecodeMethod, EncodeMethod
from vaefast.models.mixture import GaussianMixture
from vaefast.models.vae import VAE
from vaefast.models.wrapping import ModuleVAE

__all__ = ["ADAPTER"]

POINT = (
    "its encoder gives a point and no σ; choose one: vaefast.VAE(encoder_mean=model.encoder, "
    "encoder_logvar=torch.full((d,), 2 * math.log(sigma)), decoder=model.decoder, "
    'likelihood="gaussian", obs_std=0.5**0.5, decoder_output="mean")'
)
REFUSED = {
    "VQVAE": "its latents are codes of a codebook, not a Gaussian",
    "SVAE": "its posterior is a von Mises-Fisher distribution on a sphere, not a Gaussian",
    "PoincareVAE": "its posterior lives in hyperbolic space and is no Gaussian",
    "VAE_IAF": "its posterior is a Gaussian pushed through a flow, and no Gaussian",
    "VAE_LinNF": "its posterior is a Gaussian pushed through a flow, and no Gaussian",
    "RAE_GP": POINT,
    "RAE_L2": POINT,
    "WAE_MMD": POINT,
    "AE": POINT,  # the base of those above
}
ROUNDING = 64.0  # ulp of a density by which two ways to take it may differ
NO_LIKELIHOOD = ("VAEGAN", "MSSSIM_VAE")  # losses that are no log p(x|z)


class SoftplusScale(nn.Module):
    """The encoder of an HVAE: σ = softplus(log_covariance)."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        out = self.encoder(x)
        return out.embedding, 2.0 * torch.log(F.softplus(out.log_covariance))


class MixturePrior:
    """log p(z) of a VAMP, in nats: its own ``_log_p_z`` lacks the constant −(d/2)·log 2π."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def log_prob(self, z: Tensor) -> Tensor:
        return self.model._log_p_z(z) - 0.5 * z.shape[1] * math.log(2.0 * math.pi)

    @torch.no_grad()
    def mixture(self) -> GaussianMixture | None:
        """The same density with the components read once, or None where it is not that.

        Versions differ in what they make of the log-variance; the one that gives this density, to
        rounding, near the components and far from them is taken.
        """
        model = self.model
        inputs = model.pseudo_inputs(model.idle_input.to(next(model.parameters()).device))
        out = model.encoder(inputs.reshape(-1, *model.model_config.input_dim))
        means = out.embedding
        z = torch.cat([means + shift for shift in (0.0, 1.0, -4.0, 16.0)])
        own = self.log_prob(z).double()
        allowed = ROUNDING * torch.finfo(means.dtype).eps * (1.0 + own.abs())
        for logvars in (out.log_covariance, torch.tanh(out.log_covariance)):
            found = GaussianMixture(means, logvars)
            if bool(((found.log_prob(z) - own).abs() <= allowed).all()):
                return found
        return None


def wrap(model: Any, options: dict[str, Any]) -> VAE:
    """A pythae model as a VAE; options that are given come before what its config says.

    Raises:
        TypeError: its posterior is no diagonal Gaussian; the message says what it is.
        ValueError: its loss is no log-likelihood, and none is named.
    """
    _refuse(model)
    options = _likelihood(model, options) | options
    if _is(model, "VAMP"):
        options.setdefault("prior", MixturePrior(model))
    encoder: nn.Module = EncodeMethod(model, options.get("encoder_output"), "encoder")
    if _is(model, "HVAE"):
        encoder = SoftplusScale(model.encoder)
    output, pair = options.get("decoder_output"), options.get("likelihood") == "gaussian"
    return ModuleVAE(encoder, DecodeMethod(model, output, pair, "decoder"), **options)


def _is(model: nn.Module, kind: str) -> bool:
    return is_from(model, "pythae", kind)


def _refuse(model: Any) -> None:
    """Refuse a model that has no Gaussian posterior."""
    reason = next((why for kind, why in REFUSED.items() if _is(model, kind)), None)
    if _is(model, "Adversarial_AE") and model.deterministic_posterior:
        reason = "deterministic_posterior is on, so its σ is 0"
    if reason is not None:
        raise TypeError(f"pythae's {type(model).__name__} has no Gaussian posterior: {reason}")


def _likelihood(model: Any, options: dict[str, Any]) -> dict[str, Any]:
    """What the model's reconstruction loss is the negative log-likelihood of.

    The loss of an HVAE takes the decoder's output as logits, whatever its last layer.
    """
    if "likelihood" in options:
        return {}
    if any(_is(model, kind) for kind in NO_LIKELIHOOD):
        raise ValueError(
            f"likelihood must be named for pythae's {type(model).__name__}, whose reconstruction "
            'loss is no log p(x|z); pass likelihood="gaussian" and obs_std='
        )
    if model.model_config.reconstruction_loss == "mse":
        std = {} if options.get("decoder_output") == "mean_logvar" else {"obs_std": 1.0}
        return {"likelihood": "gaussian", **std}
    output = "logits" if _is(model, "HVAE") else "probabilities"
    return {"likelihood": "bernoulli", "decoder_output": output}


ADAPTER = Adapter("pythae", lambda module: is_from(module, "pythae", "BaseAE"), wrap)
