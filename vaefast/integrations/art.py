"""ART's projected gradient descent, the same calls and the same results, fused and on the device.

A subclass of ART 1.20's attack for PyTorch classifiers. Loss, preprocessing, labels, masks,
momentum, batches and random starts are the library's::

    from vaefast.integrations import art
    adversarial = art.ProjectedGradientDescent(estimator, eps=0.3, eps_step=0.1).generate(x)

Inside a batch everything stays on the estimator's device: eps is broadcast and copied once, not at
every step, nothing waits for a look at NaN, and weights get no gradient. Other estimators, norms
beside ∞ and 2, and attacks with a summary writer run as in ART.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaefast.integrations.updates import Step, frozen, like_library, required

__all__ = ["ProjectedGradientDescent", "ProjectedGradientDescentPyTorch"]

library: Any = required("art.attacks.evasion")
pytorch: Any = required(
    "art.attacks.evasion.projected_gradient_descent.projected_gradient_descent_pytorch"
)

NORMS = {np.inf: "linf", "inf": "linf", 2: "l2"}


class ProjectedGradientDescentPyTorch(pytorch.ProjectedGradientDescentPyTorch):
    """ART's attack on a PyTorch classifier with the fused step.

    x' ← project(clip(x' + eps_step·u)), u = sign g or g/‖g‖₂ (0 for a gradient of 0), NaN in a
    gradient counting as 0.
    """

    def _generate_batch(
        self, x: Tensor, targets: Tensor, mask: Tensor | None, eps: Any, eps_step: Any
    ) -> np.ndarray:
        theirs = super()._generate_batch
        device = self.estimator.device
        step = self._step(x.to(device), eps, eps_step)
        with frozen(self.estimator.model):
            if step is None:
                return theirs(x, targets, mask, eps, eps_step)
            found = like_library(
                lambda: self._attacked(x, targets, mask, eps, eps_step, step),
                lambda: theirs(x, targets, mask, eps, eps_step),
                device,
            )
        return found.cpu().numpy() if isinstance(found, Tensor) else found

    def _attacked(
        self, x: Tensor, targets: Tensor, mask: Tensor | None, eps: Any, eps_step: Any, step: Step
    ) -> Tensor:
        device = self.estimator.device
        x, targets = x.to(device), targets.to(device)
        mask = None if mask is None else mask.to(device)
        momentum, adv = torch.zeros_like(x), x.clone()
        for number in range(self.max_iter):
            if number == 0 and self.num_random_init > 0:  # the library's own first step and start
                adv = self._compute_pytorch(adv, x, targets, mask, eps, eps_step, True, momentum)
            else:
                adv = step(adv, self._gradient(adv, targets, mask, momentum), x)
        return adv.detach()

    def _gradient(self, x: Tensor, y: Tensor, mask: Tensor | None, momentum: Tensor) -> Tensor:
        """What is ascended along; momentum is updated in place, as in ART."""
        grad = self.estimator.loss_gradient(x=x, y=y)
        if self.targeted:
            grad = -grad
        if mask is not None:
            grad = torch.where(mask == 0.0, torch.zeros_like(grad), grad)
        if self.decay is None:
            return grad
        length = grad.flatten(1).abs().sum(1).view(-1, *[1] * (grad.ndim - 1))
        one = grad / torch.where(length == 0, torch.ones_like(length), length)
        momentum.mul_(self.decay).add_(one)
        return momentum

    def _step(self, x: Tensor, eps: Any, eps_step: Any) -> Step | None:
        """The fused step for a batch, or None where it has no place."""
        norm = NORMS.get(self.norm)
        if norm is None or self.summary_writer is not None or not len(x):
            return None
        radius, alpha = _values(eps, x, norm), _values(eps_step, x, norm)
        box = self.estimator.clip_values
        low, high = (-np.inf, np.inf) if box is None else box
        if radius is None or alpha is None:
            return None
        return Step(alpha, radius, norm, _bound(low, x), _bound(high, x), order="clip_project")


class ProjectedGradientDescent(library.ProjectedGradientDescent):
    """``art.attacks.evasion.ProjectedGradientDescent`` with the fused step for PyTorch classifiers.

    Takes all of its arguments. Other estimators run as in ART: ``attack_class`` says what runs.
    """

    def __init__(self, estimator: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(estimator, *args, **kwargs)
        self._attack: Any
        if type(self._attack) is pytorch.ProjectedGradientDescentPyTorch:
            self._attack = ProjectedGradientDescentPyTorch(estimator, *args, **kwargs)

    @property
    def attack_class(self) -> type:
        """The class whose ``generate`` runs: ours, or ART's for another estimator."""
        return type(self._attack)


def _values(value: Any, x: Tensor, norm: str) -> float | Tensor | None:
    """A radius or a step length as the fused step takes it: a number, [B], or in ℓ∞ like x."""
    if not isinstance(value, np.ndarray):
        return float(value)
    rows = np.broadcast_to(value, x.shape).reshape(len(x), -1)
    if (rows == rows[:, :1]).all():
        return torch.tensor(rows[:, 0].copy(), device=x.device, dtype=x.dtype)
    if norm == "l2":
        return None
    return torch.tensor(rows.reshape(x.shape), device=x.device, dtype=x.dtype)


def _bound(value: Any, x: Tensor) -> float | Tensor:
    """An end of the box: a number, or one per feature."""
    if np.ndim(value) == 0:
        return float(value)
    bound = torch.as_tensor(np.asarray(value), device=x.device, dtype=x.dtype)
    return bound.expand(x.shape[1:])[None]
