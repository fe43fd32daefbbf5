"""From a decoder's output to natural parameters and to pixels, for each likelihood."""

from __future__ import annotations

import torch
from torch import Tensor

from vaefast import checks
from vaefast.models.calls import HALF
from vaefast.types import LIKELIHOODS

__all__ = [
    "check_likelihood",
    "clamped_logit",
    "resolve_decoder_output",
    "to_pixels",
    "within_unit_interval",
]


def check_likelihood(likelihood: str, obs_std: float) -> tuple[str, float]:
    """A known likelihood, and a positive finite standard deviation in pixel scale.

    Raises:
        ValueError: an unknown name, or ``obs_std`` is not positive and finite.
        TypeError: ``obs_std`` is not a number.
    """
    checks.option(likelihood, "likelihood", LIKELIHOODS)
    obs_std = checks.number(obs_std, "obs_std")
    if not 0.0 < obs_std < float("inf"):
        raise ValueError(f"obs_std must be positive and finite, got {obs_std:g}")
    return likelihood, obs_std


def resolve_decoder_output(decoder_output: str | None, likelihood: str) -> str:
    """What the decoder returns; by default the natural parameters of its likelihood.

    Raises:
        ValueError: a name that does not go with the likelihood.
    """
    gaussian = likelihood == "gaussian"
    allowed = ("mean",) if gaussian else ("logits", "probabilities")
    if decoder_output is None:
        return allowed[0]
    if decoder_output not in allowed:
        why = (
            "a Gaussian decoder returns the mean, whatever its last layer"
            if gaussian
            else "the mean of a Bernoulli is its probability"
        )
        names = " or ".join(f'"{name}"' for name in allowed)
        raise ValueError(
            f"decoder_output must be {names} with likelihood {likelihood!r}, "
            f"got {decoder_output!r}; {why}"
        )
    return decoder_output


def to_pixels(out: Tensor, likelihood: str) -> Tensor:
    """Natural parameters in pixel scale: σ(logits), or the Gaussian's mean, unclipped."""
    return out if likelihood == "gaussian" else torch.sigmoid(out)


def within_unit_interval(out: Tensor) -> bool:
    """Whether a decoder's whole output is in [0, 1], as probabilities are and logits seldom."""
    return bool(((out >= 0) & (out <= 1)).all())


def clamped_logit(probabilities: Tensor) -> Tensor:
    """log p/(1−p) with p clamped to [ε, 1−ε], ε the dtype's; the gradient is zero outside.

    Half-precision probabilities are turned in float32, whose ε still tells 1−ε from 1.
    """
    p = probabilities.float() if probabilities.dtype in HALF else probabilities
    return torch.logit(p, eps=torch.finfo(p.dtype).eps)
