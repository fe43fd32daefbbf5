"""foolbox's gradient attacks, the same calls and the same results, with the fused update inside.

Subclasses of foolbox 3.3's: ``run(fmodel, x, criterion, epsilon=)`` and ``__call__`` with several
epsilons are the library's, and so are the loss, the random starts and the criteria::

    from vaefast.integrations import foolbox
    adversarial = foolbox.LinfPGD().run(fmodel, x, criterion, epsilon=0.03)

ℓ∞ and ℓ2 steps are one fused op. Steps by another optimiser (Adam, momentum), in ℓ1, or of a
subclass that overrides ``get_optimizer``, ``normalize`` or ``project`` are the library's own
operations. In all of them the gradient is that of the input alone, where the library's
``loss.backward()`` also computes and keeps one for every weight of the model. Models of TensorFlow
and JAX run as in foolbox.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from vaefast.integrations.updates import (
    Step,
    input_gradient,
    is_number,
    like_library,
    required,
)

__all__ = [
    "FGM",
    "FGSM",
    "L1PGD",
    "L2PGD",
    "MIFGSM",
    "PGD",
    "L2AdamPGD",
    "L2BasicIterativeAttack",
    "LinfAdamPGD",
    "LinfBasicIterativeAttack",
    "LinfPGD",
]

library: Any = required("foolbox.attacks")
base: Any = required("foolbox.attacks.gradient_descent_base")
eagerpy: Any = required("eagerpy")

FLOOR = 1e-12  # of the norm of a gradient or a perturbation


class _Fused(base.BaseGradientDescent):
    """``run`` of a projected gradient attack."""

    def run(self, model: Any, inputs: Any, criterion: Any, *, epsilon: float, **kwargs: Any) -> Any:
        theirs = super().run
        x, restore = eagerpy.astensor_(inputs)
        if not isinstance(x, eagerpy.PyTorchTensor) or _changed(self, "value_and_grad"):
            return theirs(model, inputs, criterion, epsilon=epsilon, **kwargs)
        base.raise_if_kwargs(kwargs)
        base.verify_input_bounds(x, model)
        sign, classes = _direction(criterion)
        loss_of = self.get_loss_fn(model, classes)

        def gradient(point: Tensor) -> Tensor:
            return input_gradient(lambda at: loss_of(eagerpy.astensor(at)).raw, point)

        adversarial = like_library(
            lambda: self._attacked(model, x, gradient, sign, epsilon),
            lambda: theirs(model, x, criterion, epsilon=epsilon).raw,
            x.raw.device,
        )
        return restore(eagerpy.astensor(adversarial))

    def _attacked(
        self, model: Any, x: Any, gradient: Callable, sign: float, epsilon: float
    ) -> Tensor:
        size = self.rel_stepsize * epsilon if self.abs_stepsize is None else self.abs_stepsize
        point = x
        if self.random_start:
            point = eagerpy.clip(self.get_random_start(x, epsilon), *model.bounds)
        fused = self._step(sign * size, epsilon, *model.bounds)
        if fused is not None:
            moved = point.raw
            for _ in range(self.steps):
                moved = fused(moved, gradient(moved), x.raw)
            return moved
        optimizer = self.get_optimizer(x, size)
        for _ in range(self.steps):
            grad = eagerpy.astensor(gradient(point.raw))
            grad = self.normalize(grad, x=point, bounds=model.bounds)
            point = self.project(point + sign * optimizer(grad), x, epsilon)
            point = eagerpy.clip(point, *model.bounds)
        return point.raw

    def _step(self, alpha: float, eps: float, low: float, high: float) -> Step | None:
        """The fused step, where nothing about it is another's."""
        norm = next((name for kind, name in NORMS.items() if isinstance(self, kind)), None)
        own = any(_changed(self, name) for name in ("get_optimizer", "normalize", "project"))
        if norm is None or own or not is_number(alpha, eps, low, high):
            return None
        return Step(alpha, eps, norm, low, high, floor=FLOOR)


NORMS = {base.LinfBaseGradientDescent: "linf", base.L2BaseGradientDescent: "l2"}
BASES = (*NORMS, base.BaseGradientDescent)


def _changed(attack: Any, name: str) -> bool:
    """Whether a method is none of the library's plain gradient descent."""
    own = getattr(type(attack), name)
    return all(own is not getattr(kind, name) for kind in BASES)


def _direction(criterion: Any) -> tuple[float, Any]:
    """1 to ascend the loss of the true classes, or −1 to descend that of the target's."""
    criterion = base.get_criterion(criterion)
    if isinstance(criterion, base.Misclassification):
        return 1.0, criterion.labels
    if hasattr(criterion, "target_classes"):
        return -1.0, criterion.target_classes
    raise ValueError("unsupported criterion")


class LinfPGD(library.LinfPGD, _Fused):
    """``foolbox.attacks.LinfPGD``: 40 steps of eps/30 from a uniform start."""


class L2PGD(library.L2PGD, _Fused):
    """``foolbox.attacks.L2PGD``: 50 steps of eps/40, gradients over max(‖g‖₂, 1e-12)."""


class L1PGD(library.L1PGD, _Fused):
    """``foolbox.attacks.L1PGD``, its steps by the library; the projection rescales."""


class LinfBasicIterativeAttack(library.LinfBasicIterativeAttack, _Fused):
    """``foolbox.attacks.LinfBasicIterativeAttack``: 10 steps of eps/5 from x."""


class L2BasicIterativeAttack(library.L2BasicIterativeAttack, _Fused):
    """``foolbox.attacks.L2BasicIterativeAttack``: 10 steps of eps/5 from x."""


class FGSM(library.FGSM, _Fused):
    """``foolbox.attacks.FGSM``: one ℓ∞ step of length eps."""


class FGM(library.FGM, _Fused):
    """``foolbox.attacks.FGM``: one ℓ2 step of length eps."""


class MIFGSM(library.MIFGSM, _Fused):
    """``foolbox.attacks.MIFGSM``: ℓ∞ steps along a momentum of signs, by the library."""


class LinfAdamPGD(library.LinfAdamPGD, _Fused):
    """``foolbox.attacks.LinfAdamPGD``, its steps by the library."""


class L2AdamPGD(library.L2AdamPGD, _Fused):
    """``foolbox.attacks.L2AdamPGD``, its steps by the library."""


PGD = LinfPGD
