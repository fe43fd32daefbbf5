"""From a decoder's output to natural parameters and to pixels, for each likelihood."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from vaefast import checks, ops
from vaefast.functional.likelihoods import PIXEL_LIKELIHOODS
from vaefast.models.calls import HALF
from vaefast.runtime.memory import row_chunks
from vaefast.types import LIKELIHOODS, Network

__all__ = [
    "LikelihoodAt",
    "check_likelihood",
    "check_pixels",
    "clamped_logit",
    "described",
    "resolve_decoder_output",
    "squashed",
    "to_pixels",
    "within_unit_interval",
]


class LikelihoodAt(NamedTuple):
    """p(x|z) at n latents: a likelihood and its parameters there.

    Args:
        likelihood: its name.
        out: natural parameters [n, *event]: logits, or the Gaussian's mean.
        params: what the likelihood takes besides: the Gaussian's standard deviation, a number,
            [D] or, where the decoder has a second head, [n, D]; nothing for the others.
    """

    likelihood: str
    out: Tensor
    params: tuple[float | Tensor, ...] = ()

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x|z) [n] float64 in nats, differentiable in all parameters.

        Args:
            x: [B, *event] with n = B·C; row i of z belongs to x[i // C].
        """
        out, x = self.out.flatten(1), x.flatten(1)
        std = self.params[0] if self.params else 1.0
        if not isinstance(std, Tensor) or std.ndim < 2:  # the op has no derivative in it
            params = [p.to(out) if isinstance(p, Tensor) else p for p in self.params]
            name = self.likelihood
            return ops.log_likelihood(out, x, likelihood=name, likelihood_params=params)[0]
        std = std.to(out)
        x = x.repeat_interleave(len(out) // max(len(x), 1), dim=0)
        law = PIXEL_LIKELIHOODS[self.likelihood]
        logp = law.log_density(out, x, std).sum(dim=1, dtype=torch.float64)
        return logp + law.constant(out.shape[1], std)


def check_likelihood(likelihood: str, obs_std: float | Tensor | None) -> tuple[str, float | Tensor]:
    """A known likelihood, and a positive finite standard deviation in pixel scale.

    Args:
        obs_std: a number, or a tensor: of no dimension, or one entry per pixel. 1 by default.

    Raises:
        ValueError: an unknown name, or ``obs_std`` is not positive and finite.
        TypeError: ``obs_std`` is neither a number nor a floating tensor.
    """
    checks.option(likelihood, "likelihood", LIKELIHOODS)
    if isinstance(obs_std, Tensor) and (obs_std.ndim or isinstance(obs_std, torch.nn.Parameter)):
        return likelihood, _check_std(obs_std)
    if isinstance(obs_std, Tensor):
        obs_std = obs_std.item()
    obs_std = 1.0 if obs_std is None else checks.number(obs_std, "obs_std")
    if not 0.0 < obs_std < float("inf"):
        raise ValueError(f"obs_std must be positive and finite, got {obs_std:g}")
    return likelihood, obs_std


def described(likelihood: str, decoder_output: str, obs_std: float | Tensor | None) -> str:
    """The likelihood with its standard deviation, for a reader."""
    if likelihood != "gaussian":
        return likelihood
    if decoder_output == "mean_logvar":
        return "gaussian, std from the decoder"
    if isinstance(obs_std, Tensor) and obs_std.numel() > 1:
        return f"gaussian, std {float(obs_std.min()):g} to {float(obs_std.max()):g} per pixel"
    return f"gaussian, std {float(1.0 if obs_std is None else obs_std):g}"


def check_pixels(x: Tensor, likelihood: str, name: str = "x") -> None:
    """Pixels in [0, 1] wherever log p(x|z) of a Bernoulli is evaluated, continuous or clamped.

    Entries that are NaN or infinite pass: they are the row's own failure.

    Raises:
        ValueError: a pixel lies outside; the message has the remedy.
    """
    if likelihood == "gaussian" or not x.numel():
        return
    low, high = (float(v) for v in x.aminmax())
    if low >= 0.0 and high <= 1.0:
        return
    if not (math.isfinite(low) and math.isfinite(high)):  # NaN in one entry makes both NaN
        low, high = _finite_range(x)
    if low < 0.0 or high > 1.0:
        digits = 9 if low > -1e-3 and high < 1.001 else 6  # so that 1.0000002 is not shown as 1
        remedy = checks.into_unit_interval("pass", name, low, high)
        raise ValueError(
            f"{name} must be in [0, 1] with likelihood {likelihood!r}, got values from "
            f"{low:.{digits}g} to {high:.{digits}g}; {remedy}, "
            'or use likelihood="gaussian"'
        )


def _finite_range(x: Tensor) -> tuple[float, float]:
    """Smallest and largest finite entry, within the memory budget; 0 where there is none."""
    low, high = [0.0], [0.0]
    for rows in row_chunks(len(x), 2 * x.element_size() * x.shape[1:].numel()):
        part = x[rows]
        ends = torch.where(part.isfinite(), part, part.new_zeros(())).aminmax()
        low.append(float(ends.min))
        high.append(float(ends.max))
    return min(low), max(high)


def _check_std(obs_std: Tensor) -> Tensor:
    if not obs_std.is_floating_point():
        raise TypeError(f"obs_std must be a floating tensor, got {checks.short(obs_std.dtype)}")
    if not bool(((obs_std > 0) & obs_std.isfinite()).all()):
        raise ValueError("obs_std must be positive and finite in every entry")
    return obs_std


def resolve_decoder_output(decoder_output: str | None, likelihood: str) -> str:
    """What the decoder returns; by default the natural parameters of its likelihood.

    Raises:
        ValueError: a name that does not go with the likelihood.
    """
    gaussian = likelihood == "gaussian"
    allowed = ("mean", "mean_logvar") if gaussian else ("logits", "probabilities")
    if decoder_output is None:
        return allowed[0]
    if decoder_output not in allowed:
        why = (
            "a Gaussian decoder returns the mean, whatever its last layer, or also a log-variance"
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


def squashed(likelihood: str, net: Network) -> str:
    """Why the ops' Bernoulli likelihoods refuse a network, "" where they do not.

    Logits that come out of a sigmoid are mostly probabilities; where they are taken for logits all
    the same, the potential is evaluated beside the decoder.
    """
    wrong = likelihood != "gaussian" and net.activations[-1] == "sigmoid"
    return "what is taken for logits comes out of a sigmoid" if wrong else ""


def within_unit_interval(out: Tensor) -> bool:
    """Whether a decoder's whole output is in [0, 1], as probabilities are and logits seldom."""
    return bool(((out >= 0) & (out <= 1)).all())


def clamped_logit(probabilities: Tensor) -> Tensor:
    """log p/(1−p) with p clamped to [ε, 1−ε], ε the dtype's; the gradient is zero outside.

    Half-precision probabilities are turned in float32, whose ε still tells 1−ε from 1.
    """
    p = probabilities.float() if probabilities.dtype in HALF else probabilities
    return torch.logit(p, eps=torch.finfo(p.dtype).eps)
