"""Seatbelt: the total correlation of the top group of a hierarchical VAE is charged more."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vaefast import checks
from vaefast.models.groups import Group
from vaefast.models.hierarchical import HierarchicalVAE
from vaefast.training.step import Step
from vaefast.training.total_correlation import ESTIMATORS, decompose_kl
from vaefast.training.weights import check_weight

__all__ = ["Seatbelt"]


@dataclass(frozen=True)
class Seatbelt:
    """The bound of a hierarchical VAE with the top group's total correlation weighed by β.

        loss = −log p(x|z) + Σ_k max(free bits, KL of group k) + (β−1)·TC(q(z_1))

    The top group's KL is MI + TC + KL by dimension, of which β weighs TC alone; with β = 1 the
    loss is that of :class:`GroupELBO`. TC is estimated from the batch (:func:`decompose_kl`).

    Args:
        beta: weight of the total correlation.
        estimator: of q(z_1) and its marginals.

    Source: Willetts et al. 2021 (mathematics.md 5.1). Their posterior runs from the bottom up, that
    of :class:`~vaefast.models.HierarchicalVAE` from the top down.
    """

    beta: float = 1.0
    estimator: str = "weighted"

    def __post_init__(self) -> None:
        check_weight(self.beta)
        checks.option(self.estimator, "estimator", ESTIMATORS)

    def terms(self, vae: HierarchicalVAE, x: Tensor, step: Step) -> dict[str, Tensor]:
        """The loss, log p(x|z), the KL of each group and the TC of the top one; nats."""
        noise = [step.normal(x.new_empty(len(x), *shape)) for shape in vae.shapes]
        logp, path = vae.drawn(x, noise)
        kl = [found for group in path if (found := group.kl()) is not None]
        charged = torch.stack([part.mean().clamp_min(vae.free_bits) for part in kl]).sum()
        total = self._total_correlation(path[0], step.rows)
        loss = charged - logp.mean() + (self.beta - 1.0) * total.mean()
        named = {f"kl_{k}": part for k, part in enumerate(kl, start=1)}
        return {"loss": loss, "reconstruction": logp, **named, "total_correlation": total}

    def _total_correlation(self, top: Group, rows: int) -> Tensor:
        """Of the top group, a vector: [n] float64, nats."""
        log_prior = Group(top.z, *(torch.zeros_like(top.z),) * 2).log_prob()
        parts = decompose_kl(top.mean, top.logvar, top.z, log_prior, rows, self.estimator)
        return parts.total_correlation
