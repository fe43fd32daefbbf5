"""What training minimises: small objects that turn a batch into terms, one of them the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from vaefast import checks
from vaefast.elbo import elbo_terms
from vaefast.models.context import as_keyword
from vaefast.models.groups import Hierarchical
from vaefast.models.hierarchical import HierarchicalVAE
from vaefast.models.vae import VAE
from vaefast.training.step import Step
from vaefast.training.total_correlation import TCVAE, check_weight

__all__ = ["OBJECTIVES", "BetaELBO", "GroupELBO", "Objective", "described", "find"]

OBJECTIVES = ("elbo", "beta", "tcvae")


class Objective(Protocol):
    """What :func:`~vaefast.training.fit` minimises; a caller's own is any object of this kind.

    An object whose settings matter is best a dataclass: a checkpoint then holds them, and refuses
    to go on with others.
    """

    def terms(self, vae: Any, x: Tensor, step: Step) -> dict[str, Tensor]:
        """``"loss"``, and whatever else is to be seen in the history, each [n] or a mean [].

        Args:
            vae: in training mode, in eval mode for the validation.
            x: a batch [n, *event].
            step: the random numbers, the context of the rows, and how many rows there are.
        """


@dataclass(frozen=True)
class BetaELBO:
    """−log p(x|z) + β·KL(q(z|x) ‖ p(z)) at one draw z; the evidence bound where β = 1.

    Source: Kingma, Welling 2014; Higgins et al. 2017 (β).
    """

    beta: float = 1.0

    def __post_init__(self) -> None:
        check_weight(self.beta)

    def terms(self, vae: VAE, x: Tensor, step: Step) -> dict[str, Tensor]:
        """The loss, log p(x|z) and the KL term, nats [n]."""
        mean, logvar = vae.encode(x, **as_keyword(step.context))
        noise = step.normal(mean)
        logp, kl = elbo_terms(vae, x, mean, logvar, noise, step.context)
        return {"loss": self.beta * kl - logp, "reconstruction": logp, "kl": kl}


@dataclass(frozen=True)
class GroupELBO:
    """−log p(x|z) + β Σ_k max(free bits, KL of group k), of a hierarchical VAE at one path z.

    The maximum is of the mean over the batch, and of a :class:`HierarchicalVAE` alone. A model of
    :func:`~vaefast.models.as_hierarchical` has log q(z|x) − log p(x, z) at the draw, with β = 1.

    Source: Sønderby et al. 2016; Kingma et al. 2016 (free bits).
    """

    beta: float = 1.0

    def __post_init__(self) -> None:
        check_weight(self.beta)

    def terms(self, vae: Hierarchical, x: Tensor, step: Step) -> dict[str, Tensor]:
        """The loss, log p(x|z) and the KL of each group; or log p(x, z) and log q(z|x); nats."""
        noise = [step.normal(x.new_empty(len(x), *shape)) for shape in vae.shapes]
        if not isinstance(vae, HierarchicalVAE):
            return self._of_draws(vae, x, noise)
        logp, kl = vae.bound(x, noise)
        charged = torch.stack([part.mean().clamp_min(vae.free_bits) for part in kl]).sum()
        named = {f"kl_{k}": part for k, part in enumerate(kl, start=1)}
        return {"loss": self.beta * charged - logp.mean(), "reconstruction": logp, **named}

    def _of_draws(self, vae: Hierarchical, x: Tensor, noise: list[Tensor]) -> dict[str, Tensor]:
        path = vae.posterior_path(x, noise)
        log_q = torch.stack([group.log_prob() for group in path]).sum(0)
        joint = vae.log_joint([group.z for group in path], x)
        return {"loss": self.beta * log_q - joint, "log_joint": joint, "log_posterior": log_q}


def find(objective: str | Objective, beta: float, vae: VAE | Hierarchical) -> Objective:
    """The objective of that name for the model, or the caller's own.

    Raises:
        TypeError: it has no ``terms``.
        ValueError: an unknown name, or a ``beta`` that it does not take.
    """
    check_weight(beta)
    if not isinstance(objective, str):
        return _own(objective, beta)
    checks.option(objective, "objective", OBJECTIVES)
    if objective == "elbo" and beta != 1.0:
        raise ValueError(f'beta must be 1 with objective "elbo", got {beta:g}; say "beta"')
    if not isinstance(vae, Hierarchical):
        return TCVAE(float(beta)) if objective == "tcvae" else BetaELBO(float(beta))
    if objective == "tcvae":
        raise ValueError(
            'objective "tcvae" needs one Gaussian posterior, got a hierarchical VAE; train it with '
            '"elbo" or "beta"'
        )
    if beta != 1.0 and not isinstance(vae, HierarchicalVAE):
        raise ValueError(f"beta must be 1 for a model wrapped by as_hierarchical, got {beta:g}")
    return GroupELBO(float(beta))


def described(objective: Objective) -> str:
    """Kind and settings, the same in every process."""
    kind = type(objective)
    return repr(objective) if hasattr(kind, "__dataclass_fields__") else kind.__qualname__


def _own(objective: Objective, beta: float) -> Objective:
    if not callable(getattr(objective, "terms", None)):
        raise TypeError(
            f"objective must be one of {', '.join(map(repr, OBJECTIVES))} or have "
            f"terms(vae, x, step) -> dict, got {type(objective).__name__}"
        )
    if beta != 1.0:
        raise ValueError(
            f"beta is for an objective given by name, got {beta:g} beside "
            f"{type(objective).__name__}; give the object its own weights"
        )
    return objective
