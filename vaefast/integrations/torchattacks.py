"""torchattacks' attacks, the same calls and the same results, with the fused update inside.

Subclasses of torchattacks 3.5's: ``set_mode_targeted_by_label`` and its kin,
``set_normalization_used``, ``save`` and all else are the library's. Losses, model calls and random
starts are too, so that the same seed gives the same images to round-off::

    from vaefast.integrations import torchattacks
    atk = torchattacks.PGD(model, eps=8/255, alpha=2/255, steps=10)
    adversarial = atk(images, labels)  # images in [0, 1]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vaefast.integrations.apgd import single_run
from vaefast.integrations.updates import Step, input_gradient, is_number, like_library, required

__all__ = ["APGD", "FGSM", "MIFGSM", "PGD", "PGDL2"]

library: Any = required("torchattacks")


class _Fused:
    """An attack whose forward pass is ours, or the library's where ours has no answer."""

    def forward(self: Any, images: Tensor, labels: Tensor) -> Tensor:
        theirs = super().forward  # type: ignore[misc]
        if not is_number(*self._scalars()):
            return theirs(images, labels)
        return like_library(
            lambda: self._attacked(images, labels), lambda: theirs(images, labels), self.device
        )

    def _scalars(self: Any) -> tuple[Any, ...]:
        return self.eps, self.alpha

    def _given(self: Any, images: Tensor, labels: Tensor) -> tuple[Tensor, Callable]:
        """The images on the model's device, and the gradient of what is ascended there."""
        images = images.detach().clone().to(self.device)
        labels = labels.detach().clone().to(self.device)
        sign, classes = 1.0, labels
        if self.targeted:
            sign, classes = -1.0, self.get_target_label(images, labels)
        criterion = nn.CrossEntropyLoss()
        return images, lambda x: input_gradient(
            lambda at: sign * criterion(self.get_logits(at), classes), x
        )


class PGD(_Fused, library.PGD):
    """ℓ∞ projected gradient steps (Madry et al. 2018), ``torchattacks.PGD``.

    adv ← clip(x + clamp(adv + alpha·sign ∇CE − x, −eps, eps), 0, 1), mean cross-entropy.
    """

    def _attacked(self, images: Tensor, labels: Tensor) -> Tensor:
        images, gradient = self._given(images, labels)
        adv = images
        if self.random_start:
            noise = torch.empty_like(images).uniform_(-self.eps, self.eps)
            adv = (images + noise).clamp_(0.0, 1.0)
        step = Step(self.alpha, self.eps, "linf")
        for _ in range(self.steps):
            adv = step(adv, gradient(adv), images)
        return adv


class PGDL2(_Fused, library.PGDL2):
    """ℓ2 projected gradient steps, ``torchattacks.PGDL2``.

    The step is alpha·g / (‖g‖₂ + ``eps_for_division``); the start has a normal direction and a
    radius uniform in (0, eps).
    """

    def _scalars(self) -> tuple[Any, ...]:
        return self.eps, self.alpha, self.eps_for_division

    def _attacked(self, images: Tensor, labels: Tensor) -> Tensor:
        images, gradient = self._given(images, labels)
        adv = images
        if self.random_start:
            noise = torch.empty_like(images).normal_()
            length = noise.flatten(1).norm(p=2, dim=1)
            length = length.view(-1, *[1] * (images.ndim - 1))
            radius = torch.zeros_like(length).uniform_(0, 1)
            adv = (images + noise * (radius / length * self.eps)).clamp_(0.0, 1.0)
        step = Step(self.alpha, self.eps, "l2", added=self.eps_for_division)
        for _ in range(self.steps):
            adv = step(adv, gradient(adv), images)
        return adv


class FGSM(_Fused, library.FGSM):
    """One ℓ∞ step of length ``eps`` from the image, ``torchattacks.FGSM``."""

    def _scalars(self) -> tuple[Any, ...]:
        return (self.eps,)

    def _attacked(self, images: Tensor, labels: Tensor) -> Tensor:
        images, gradient = self._given(images, labels)
        return Step(self.eps, self.eps, "linf")(images, gradient(images), images)


class MIFGSM(_Fused, library.MIFGSM):
    """ℓ∞ steps along a momentum of gradients (Dong et al. 2018), ``torchattacks.MIFGSM``.

    m ← g / mean|g| + decay·m, adv ← project(adv + alpha·sign m). A gradient that is 0 gives NaN,
    as in the library.
    """

    def _attacked(self, images: Tensor, labels: Tensor) -> Tensor:
        images, gradient = self._given(images, labels)
        adv, momentum = images, torch.zeros_like(images)
        step = Step(self.alpha, self.eps, "linf")
        for _ in range(self.steps):
            grad = gradient(adv)
            mean = grad.abs().mean(dim=tuple(range(1, grad.ndim)), keepdim=True)
            momentum = grad.div_(mean).add_(momentum, alpha=self.decay)
            adv = step(adv, momentum, images)
        return adv


class APGD(library.APGD):
    """Auto-PGD (Croce and Hein 2020), ``torchattacks.APGD``: no step length to choose.

    Best points, checkpoints and halvings are decided on the device, without a copy to numpy or an
    index by ``nonzero`` at every step.
    """

    def attack_single_run(self, x_in: Tensor, y_in: Tensor) -> tuple[Tensor, ...]:
        return single_run(self, x_in, y_in, super().attack_single_run)
