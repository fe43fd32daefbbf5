"""What training minimises: small objects that turn a batch into terms, one of them the loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

import torch
from torch import Tensor

from vaefast import checks
from vaefast.elbo import elbo_terms
from vaefast.models.context import as_keyword
from vaefast.models.groups import Hierarchical
from vaefast.models.hierarchical import HierarchicalVAE
from vaefast.models.vae import VAE
from vaefast.training.adversarial import Adversarial
from vaefast.training.avae import AVAE
from vaefast.training.fisher import Fisher
from vaefast.training.mixup import Mixup
from vaefast.training.seatbelt import Seatbelt
from vaefast.training.smooth import Smooth
from vaefast.training.step import Step
from vaefast.training.total_correlation import TCVAE
from vaefast.training.weights import check_weight

__all__ = ["OBJECTIVES", "BetaELBO", "GroupELBO", "Objective", "described", "find", "named"]


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


SINGLE: dict[str, type[Any]] = {
    "elbo": BetaELBO,
    "beta": BetaELBO,
    "tcvae": TCVAE,
    "mixup": Mixup,
    "smooth": Smooth,
    "avae": AVAE,
    "fisher": Fisher,
    "adversarial": Adversarial,
}  # of a VAE
GROUPED: dict[str, type[Any]] = {"elbo": GroupELBO, "beta": GroupELBO, "seatbelt": Seatbelt}
OBJECTIVES = tuple(dict.fromkeys((*SINGLE, *GROUPED)))


def find(objective: str | Objective, beta: float, vae: VAE | Hierarchical) -> Objective:
    """The objective of that name for the model, or the caller's own.

    Raises:
        TypeError: it has no ``terms``.
        ValueError: an unknown name, a ``beta`` that it does not take, or a model that is not of
            its kind.
    """
    check_weight(beta)
    if not isinstance(objective, str):
        return _own(objective, beta, vae)
    return named(objective, beta, vae)


def named(
    name: str, beta: float, vae: VAE | Hierarchical, options: Mapping[str, Any] | None = None
) -> Objective:
    """The objective of that name for the model, with its options beside ``beta``.

    Raises:
        TypeError: it has no such option, or takes it in another type.
        ValueError: as :func:`find`, or an option out of range.
    """
    checks.option(name, "objective", OBJECTIVES)
    if name == "elbo" and beta != 1.0:
        raise ValueError(f'beta must be 1 with objective "elbo", got {beta:g}; say "beta"')
    kinds = GROUPED if isinstance(vae, Hierarchical) else SINGLE
    if name not in kinds:
        raise ValueError(_misfit(f'objective "{name}"', kinds))
    found: Objective = _made(name, kinds[name], float(beta), options or {})
    _check_model(found, vae)
    if isinstance(found, GroupELBO) and beta != 1.0 and not isinstance(vae, HierarchicalVAE):
        raise ValueError(f"beta must be 1 for a model wrapped by as_hierarchical, got {beta:g}")
    return found


def _made(name: str, kind: type[Any], beta: float, options: Mapping[str, Any]) -> Any:
    known = [field.name for field in fields(kind) if field.name != "beta"]
    if unknown := [option for option in options if option not in known]:
        has = f"it has {', '.join(known)}" if known else "it has none"
        raise TypeError(f'objective "{name}" has no option {unknown[0]!r}; {has} beside beta')
    return kind(beta, **options)


def _check_model(objective: Objective, vae: VAE | Hierarchical) -> None:
    """An objective of ours is given a model of its kind."""
    groups = isinstance(vae, Hierarchical)
    kinds, others = (GROUPED, SINGLE) if groups else (SINGLE, GROUPED)
    if type(objective) in others.values():
        raise ValueError(_misfit(type(objective).__name__, kinds))
    if isinstance(objective, Seatbelt) and not isinstance(vae, HierarchicalVAE):
        raise ValueError(
            "Seatbelt needs a vaefast.models.HierarchicalVAE, got a model wrapped by "
            'as_hierarchical; train it with "elbo"'
        )


def _misfit(what: str, kinds: dict[str, type[Any]]) -> str:
    fitting = ", ".join(f'"{name}"' for name in kinds)
    if kinds is GROUPED:
        return (
            f"{what} needs one Gaussian posterior, got a hierarchical VAE; train it with one of "
            f"{fitting}"
        )
    return f"{what} needs a hierarchical VAE, got one posterior; train it with one of {fitting}"


def described(objective: Objective) -> str:
    """Kind and settings, the same in every process."""
    kind = type(objective)
    return repr(objective) if hasattr(kind, "__dataclass_fields__") else kind.__qualname__


def _own(objective: Objective, beta: float, vae: VAE | Hierarchical) -> Objective:
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
    _check_model(objective, vae)
    return objective
