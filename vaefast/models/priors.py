"""The prior p(z): N(0, I), or a density of the user's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from vaefast.functional.priors import prior_energy
from vaefast.models.context import Context, call

__all__ = ["check_prior", "density", "log_prior"]


def check_prior(prior: Any) -> Any:
    """None for N(0, I), an object with ``log_prob``, or a function that is that.

    Raises:
        TypeError: it is none of these.
    """
    if prior is None or callable(getattr(prior, "log_prob", None)) or callable(prior):
        return prior
    raise TypeError(
        f"prior must be None for N(0, I), have log_prob(z) -> [n] or be that function, "
        f"got {type(prior).__name__}"
    )


def density(prior: Any) -> Callable[..., Any]:
    """z ↦ log p(z)."""
    return getattr(prior, "log_prob", prior)


def log_prior(prior: Any, z: Tensor, context: Context = None) -> Tensor:
    """log p(z) [n] float64 in nats, for z [n, d].

    Raises:
        TypeError: the prior returns no tensor.
        ValueError: the prior does not return [n].
    """
    if prior is None:
        return -prior_energy(z.double())
    log_prob = call(density(prior), z, context)
    if not isinstance(log_prob, Tensor):
        raise TypeError(
            f"prior must give log p(z) as a tensor [n] = [{len(z)}], got "
            f"{type(log_prob).__name__}; a flat prior is z.new_zeros(len(z))"
        )
    if list(log_prob.shape) != [len(z)]:
        raise ValueError(
            f"prior must give log p(z) as [n] = [{len(z)}], got {list(log_prob.shape)}; "
            "sum over the latents (torch.distributions.Independent does)"
        )
    return log_prob.double()
