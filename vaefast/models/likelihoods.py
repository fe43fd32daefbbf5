"""From a decoder's output to natural parameters and to pixels, for each likelihood."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vaefast import checks, ops
from vaefast.functional.counts import COUNTS
from vaefast.functional.likelihoods import PIXEL_LIKELIHOODS
from vaefast.models.calls import HALF
from vaefast.runtime.memory import row_chunks
from vaefast.types import LIKELIHOODS, Network

__all__ = [
    "LikelihoodAt",
    "check_dispersion",
    "check_likelihood",
    "check_pixels",
    "clamped_logit",
    "described",
    "keep",
    "log_of_mean",
    "resolve_decoder_output",
    "squashed",
    "to_pixels",
    "within_unit_interval",
]

OUTPUTS = {  # what a decoder may return, the default first; the Bernoulli family is not listed
    "gaussian": ("mean", "mean_logvar"),
    "negative_binomial": ("log_mean", "mean", "mean_dispersion"),
    "categorical": ("logits",),
}
WHY = {
    "gaussian": "a Gaussian decoder returns the mean, whatever its last layer, or also a "
    "log-variance",
    "negative_binomial": "a negative binomial's decoder returns the mean or its logarithm, and may "
    "return the dispersion",
    "categorical": "a categorical decoder returns logits over the last dimension",
}


class LikelihoodAt(NamedTuple):
    """p(x|z) at n latents: a likelihood and its parameters there.

    Args:
        likelihood: its name.
        out: natural parameters [n, *event]: logits, or the Gaussian's mean.
        params: what the likelihood takes besides: the Gaussian's standard deviation or the negative
            binomial's dispersion, a number, [D] or, where the decoder has a second head, [n, D];
            nothing for the others.
    """

    likelihood: str
    out: Tensor
    params: tuple[float | Tensor, ...] = ()

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x|z) [n] float64 in nats, differentiable in all parameters.

        Args:
            x: [B, *event] with n = B·C; row i of z belongs to x[i // C].
        """
        if self.likelihood in COUNTS:
            return self._of_counts(x)
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

    def slope_of_counts(self, x: Tensor) -> Tensor:
        """d log p(x|z) / d out [n, *event] of a likelihood of counts, x as :meth:`log_prob`."""
        return COUNTS[self.likelihood].derivative(*self._counts(x))

    def _of_counts(self, x: Tensor) -> Tensor:
        return COUNTS[self.likelihood].log_density(*self._counts(x)).flatten(1).sum(1)

    def _counts(self, x: Tensor) -> tuple[Tensor, ...]:
        """out, x and the parameters, as the functions of the likelihood take them."""
        out = self.out
        x = x.reshape(len(x), *out.shape[1:])
        x = x.repeat_interleave(len(out) // max(len(x), 1), dim=0).to(out.dtype)
        params = [torch.as_tensor(p, dtype=out.dtype, device=out.device) for p in self.params]
        return out, x, *(p.reshape(-1, *out.shape[1:]) if p.ndim else p for p in params)


def check_likelihood(likelihood: str, obs_std: float | Tensor | None) -> tuple[str, float | Tensor]:
    """A known likelihood, and a positive finite standard deviation in pixel scale.

    Args:
        obs_std: a number, or a tensor: of no dimension, or one entry per pixel. 1 by default.

    Raises:
        ValueError: an unknown name, or ``obs_std`` is not positive and finite.
        TypeError: ``obs_std`` is neither a number nor a floating tensor.
    """
    checks.option(likelihood, "likelihood", (*LIKELIHOODS, *COUNTS))
    if isinstance(obs_std, Tensor) and (obs_std.ndim or isinstance(obs_std, torch.nn.Parameter)):
        return likelihood, _check_positive(obs_std, "obs_std")
    if isinstance(obs_std, Tensor):
        obs_std = obs_std.item()
    obs_std = 1.0 if obs_std is None else checks.number(obs_std, "obs_std")
    if not 0.0 < obs_std < float("inf"):
        raise ValueError(f"obs_std must be positive and finite, got {obs_std:g}")
    return likelihood, obs_std


def check_dispersion(
    dispersion: float | Tensor | None, likelihood: str, decoder_output: str
) -> float | Tensor | None:
    """The negative binomial's θ, positive and finite; None where it takes none.

    Raises:
        ValueError: it is missing, not taken, or not positive and finite.
        TypeError: neither a number nor a floating tensor.
    """
    wanted = likelihood == "negative_binomial" and decoder_output != "mean_dispersion"
    if dispersion is None:
        if wanted:
            raise ValueError(
                'dispersion must be given with likelihood "negative_binomial" (a number or one per '
                'entry, variance mean + mean²/dispersion), or decoder_output="mean_dispersion"'
            )
        return None
    if not wanted:
        raise ValueError(
            f"dispersion is not taken with likelihood {likelihood!r} and decoder_output "
            f"{decoder_output!r}; leave it out"
        )
    if not isinstance(dispersion, Tensor):
        if not 0.0 < checks.number(dispersion, "dispersion") < math.inf:
            raise ValueError(f"dispersion must be positive and finite, got {dispersion:g}")
        return float(dispersion)
    return _check_positive(dispersion, "dispersion")


def keep(model: nn.Module, name: str, value: float | Tensor | None) -> None:
    """A parameter of the likelihood, as a buffer where it is a tensor: it moves with the model."""
    if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
        model.register_buffer(name, value, persistent=False)
    else:
        setattr(model, name, value)


def described(likelihood: str, decoder_output: str, obs_std: float | Tensor | None) -> str:
    """The likelihood with its standard deviation, for a reader."""
    if decoder_output == "joint":
        return "log p(x, z) of the caller's"
    if decoder_output == "mean_dispersion":
        return f"{likelihood}, dispersion from the decoder"
    if likelihood != "gaussian":
        return likelihood
    if decoder_output == "mean_logvar":
        return "gaussian, std from the decoder"
    if isinstance(obs_std, Tensor) and obs_std.numel() > 1:
        return f"gaussian, std {float(obs_std.min()):g} to {float(obs_std.max()):g} per pixel"
    return f"gaussian, std {float(1.0 if obs_std is None else obs_std):g}"


def check_pixels(x: Tensor, likelihood: str, name: str = "x") -> None:
    """Pixels in [0, 1] wherever log p(x|z) of a Bernoulli is evaluated, continuous or clamped.

    Counts must be at least 0; they need not be whole numbers, as attacked ones are not.

    Entries that are NaN or infinite pass: they are the row's own failure.

    Raises:
        ValueError: a pixel lies outside; the message has the remedy.
    """
    if likelihood == "gaussian" or not x.numel():
        return
    low, high = (float(v) for v in x.aminmax())
    counts = likelihood in COUNTS
    if low >= 0.0 and (high <= 1.0 or (counts and high < math.inf)):
        return
    if not (math.isfinite(low) and math.isfinite(high)):  # NaN in one entry makes both NaN
        low, high = _finite_range(x)
    if counts and low < 0.0:
        raise ValueError(
            f"{name} must be at least 0 with likelihood {likelihood!r}, got {low:g}; pass counts"
        )
    if counts:
        return
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


def _check_positive(value: Tensor, name: str) -> Tensor:
    if not value.is_floating_point():
        raise TypeError(f"{name} must be a floating tensor, got {checks.short(value.dtype)}")
    if not bool(((value > 0) & value.isfinite()).all()):
        raise ValueError(f"{name} must be positive and finite in every entry")
    return value


def resolve_decoder_output(decoder_output: str | None, likelihood: str) -> str:
    """What the decoder returns; by default the natural parameters of its likelihood.

    Raises:
        ValueError: a name that does not go with the likelihood.
    """
    allowed = OUTPUTS.get(likelihood, ("logits", "probabilities"))
    if decoder_output is None:
        return allowed[0]
    if decoder_output not in allowed:
        why = WHY.get(likelihood, "the mean of a Bernoulli is its probability")
        names = " or ".join(f'"{name}"' for name in allowed)
        raise ValueError(
            f"decoder_output must be {names} with likelihood {likelihood!r}, "
            f"got {decoder_output!r}; {why}"
        )
    return decoder_output


def to_pixels(out: Tensor, likelihood: str) -> Tensor:
    """Natural parameters in pixel scale: σ(logits), or the Gaussian's mean, unclipped.

    Of counts the mean: e^out, or the softmax over the last dimension.
    """
    if likelihood in COUNTS:
        return COUNTS[likelihood].mean(out)
    return out if likelihood == "gaussian" else torch.sigmoid(out)


def squashed(likelihood: str, net: Network) -> str:
    """Why the ops' Bernoulli likelihoods refuse a network, "" where they do not.

    Logits that come out of a sigmoid are mostly probabilities; where they are taken for logits all
    the same, the potential is evaluated beside the decoder.
    """
    wrong = likelihood not in ("gaussian", *COUNTS) and net.activations[-1] == "sigmoid"
    return "what is taken for logits comes out of a sigmoid" if wrong else ""


def within_unit_interval(out: Tensor) -> bool:
    """Whether a decoder's whole output is in [0, 1], as probabilities are and logits seldom."""
    return bool(((out >= 0) & (out <= 1)).all())


def log_of_mean(mean: Tensor) -> Tensor:
    """log μ of a mean count; a mean of 0, or below, is the smallest normal number."""
    return mean.clamp(min=torch.finfo(mean.dtype).tiny).log()


def clamped_logit(probabilities: Tensor) -> Tensor:
    """log p/(1−p) with p clamped to [ε, 1−ε], ε the dtype's; the gradient is zero outside.

    Half-precision probabilities are turned in float32, whose ε still tells 1−ε from 1.
    """
    p = probabilities.float() if probabilities.dtype in HALF else probabilities
    return torch.logit(p, eps=torch.finfo(p.dtype).eps)
