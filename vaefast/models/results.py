"""What other people's encode and decode return, read by the names that it carries.

Results are known by their shape: tuples, dicts and objects with tensors of a known name,
``torch.distributions``; no other library is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Bernoulli, ContinuousBernoulli, Distribution, Independent, Normal

__all__ = ["ENCODER_OUTPUTS", "LOGVARS", "described", "head", "image", "moments"]

TO_LOGVAR: dict[str, Callable[[Tensor], Tensor]] = {
    "logvar": lambda scale: scale,
    "std": lambda scale: 2.0 * torch.log(scale),
    "var": torch.log,
    "logstd": lambda scale: 2.0 * scale,
}
ENCODER_OUTPUTS = tuple(TO_LOGVAR)

WITHIN = ("latent_dist", "qz", "posterior")  # attributes that hold q(z|x)
MEANS = ("mean", "mu", "loc", "embedding", "z_mean", "z_mu")
SCALES = {
    "logvar": ("logvar", "log_var", "log_variance", "log_covariance", "z_logvar", "z_log_var"),
    "std": ("std", "scale", "sigma", "stddev", "std_dev"),
    "var": ("var", "variance"),
    "logstd": ("logstd", "log_std", "log_sigma", "logsigma", "log_scale"),
}
LOGVARS = SCALES["logvar"]
IMAGES = ("reconstruction", "sample", "recon_x", "x_recon", "recon", "x_hat", "logits", *MEANS)


def moments(result: Any, output: str | None = None) -> tuple[Tensor, Tensor]:
    """Mean and log-variance of q(z|x) from what ``encode`` returned.

    Args:
        result: (mean, scale) or (z, mean, scale), a tuple or list; a dict or an object with the
            tensors by name; one that holds such as ``latent_dist``; a Normal, also Independent.
        output: what the scale is; by default what its name says, a log-variance without one.

    Raises:
        TypeError: it is none of these, or a distribution that is no diagonal Gaussian.
    """
    inner = _within(result)
    if isinstance(inner, Distribution):
        normal = _base(inner)
        if not isinstance(normal, Normal):
            raise TypeError(
                "encode(x) must give a diagonal Gaussian (torch.distributions.Normal), got "
                f"{type(normal).__name__}"
            )
        return normal.loc, TO_LOGVAR["std"](normal.scale)
    found = _named_moments(inner) or _placed_moments(inner)
    if found is None:
        raise TypeError(
            "encode(x) must return (mean, logvar), two tensors [B, d], or tensors named so, "
            f"got {described(result)}"
        )
    mean, scale, kind = found
    return mean, TO_LOGVAR[output or kind](scale)


def head(result: Any, name: str, among: Sequence[str] = MEANS) -> Tensor:
    """The one tensor that a head returns, itself or by its name.

    Args:
        result: of the head.
        name: of the head, for an error.
        among: names that the tensor may have.

    Raises:
        TypeError: it is no tensor and holds none of such a name.
    """
    if isinstance(result, Tensor):
        return result
    found = _field(result, among)
    if found is None:
        raise TypeError(
            f"{name} must return one tensor [B, d], got {described(result)}; a module whose encode "
            "returns (mean, logvar) goes to vaefast.as_vae"
        )
    return found


def image(result: Any, output: str | None = None, *, pair: bool = False) -> Any:
    """The reconstruction from what ``decode`` returned: a tensor, where there is one.

    Args:
        result: a tensor; a tuple or list that begins with one; a dict or an object with one by
            name; a Bernoulli or Normal, also Independent.
        output: "probabilities" takes those of a Bernoulli, else its logits.
        pair: whether a second tensor is a log-variance; both are returned then.
    """
    if isinstance(result, Tensor):
        return result
    if isinstance(result, Distribution):
        return _of_distribution(_base(result), output, pair)
    if pair and (found := _named_moments(result)) is not None:
        mean, scale, kind = found
        return mean, TO_LOGVAR[kind](scale)
    if (out := _field(result, IMAGES)) is not None:
        return out
    if isinstance(result, tuple | list) and result and isinstance(result[0], Tensor):
        second = result[1] if len(result) == 2 else None
        return (result[0], second) if pair and isinstance(second, Tensor) else result[0]
    return result


def described(value: Any) -> str:
    """A result in a few words, for an error."""
    name = type(value).__name__
    if isinstance(value, Mapping):
        return f"{name} with {', '.join(map(str, value)) or 'nothing'}"
    return f"a {name} of {len(value)}" if isinstance(value, tuple | list) else name


def _within(result: Any) -> Any:
    """The object that holds the moments: of a tuple of one, or under a name of ``WITHIN``."""
    if isinstance(result, tuple | list) and len(result) == 1:
        return _within(result[0])
    for name in WITHIN:
        inner = _get(result, name)
        if inner is not None and not callable(inner):
            return _within(inner)
    return result


def _base(distribution: Distribution) -> Distribution:
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    return distribution


def _of_distribution(p: Distribution, output: str | None, pair: bool) -> Any:
    if isinstance(p, Normal):
        return (p.loc, TO_LOGVAR["std"](p.scale)) if pair else p.loc
    if isinstance(p, Bernoulli | ContinuousBernoulli):
        return p.probs if output == "probabilities" else p.logits
    raise TypeError(
        "decode(z) must give a Normal, Bernoulli or ContinuousBernoulli, or a tensor, got "
        f"{type(p).__name__}"
    )


def _named_moments(result: Any) -> tuple[Tensor, Tensor, str] | None:
    mean = _field(result, MEANS)
    for kind, names in SCALES.items():
        scale = _field(result, names)
        if mean is not None and scale is not None:
            return mean, scale, kind
    return None


def _placed_moments(result: Any) -> tuple[Tensor, Tensor, str] | None:
    if not isinstance(result, tuple | list) or len(result) not in (2, 3):
        return None
    if not all(isinstance(part, Tensor) for part in result):
        return None
    return result[-2], result[-1], "logvar"


def _field(result: Any, names: Sequence[str]) -> Tensor | None:
    values = (_get(result, name) for name in names)
    return next((value for value in values if isinstance(value, Tensor)), None)


def _get(result: Any, name: str) -> Any:
    if isinstance(result, Mapping):
        return result.get(name)
    if isinstance(result, Tensor):  # whose .mean and .var are methods
        return None
    return getattr(result, name, None)
