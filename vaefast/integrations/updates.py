"""What the attack classes of other libraries share: the fused update, and their way out of it.

An attack class here is a subclass of the library's own. It runs the library's loss, model calls and
random start, and puts one fused step in the place of 9 to 20 tensor operations. Where that
step cannot say what the library's arithmetic says (a gradient or an image that is not finite), the
library's own loop runs once more from the same random numbers, and its result is returned.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from vaefast.functional.pgd import shortened
from vaefast.ops.pgd_step import pgd_step

__all__ = ["Step", "frozen", "input_gradient", "is_number", "like_library", "required"]


class Step(NamedTuple):
    """A projected step with everything but its images.

    Args:
        alpha: step length, negative to descend; a number, [B], or in ℓ∞ one per element.
        eps: radius of the ball, likewise.
        norm: ``"linf"`` or ``"l2"``.
        low: smallest valid entry.
        high: largest valid entry.
        order: as :func:`vaefast.ops.pgd_step` takes it.
        floor: smallest gradient norm that is divided by (ℓ2); None: the smallest normal number.
        added: is added to the gradient's norm (ℓ2), as torchattacks has it.
    """

    alpha: float | Tensor
    eps: float | Tensor
    norm: str
    low: float | Tensor = 0.0
    high: float | Tensor = 1.0
    order: str = "project_clip"
    floor: float | None = None
    added: float = 0.0

    def __call__(self, x_adv: Tensor, grad: Tensor, x: Tensor) -> Tensor:
        """The next point, a new tensor."""
        alpha = self.alpha
        if self.added and self.norm == "l2":
            alpha = shortened(alpha, grad, self.added)
        return pgd_step(
            x_adv,
            grad,
            x,
            alpha=alpha,
            eps=self.eps,
            norm=self.norm,
            low=self.low,
            high=self.high,
            order=self.order,
            norm_eps=self.floor,
        )


def input_gradient(loss: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The gradient of a scalar loss in its input alone: no weight gets one."""
    with torch.enable_grad():
        variable = x.detach().requires_grad_()
        (grad,) = torch.autograd.grad(loss(variable), variable)
    return grad


def is_number(*values: Any) -> bool:
    """Whether all are numbers that a step of ours takes: finite or a radius without end."""
    return all(isinstance(v, Real) and not isinstance(v, bool) and v == v for v in values)


def like_library(ours: Callable[[], Any], theirs: Callable[[], Any], device: Any) -> Any:
    """Our result; where it is not finite the library's, from the same random numbers."""
    restore = _remembered(device)
    result = ours()
    parts = result if isinstance(result, tuple) else (result,)
    if all(bool(torch.isfinite(part).all()) for part in parts):
        return result
    restore()
    return theirs()


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """The model's parameters want no gradient inside, so that ``loss.backward()`` makes none."""
    wanted = [p for p in model.parameters() if p.requires_grad]
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)


def required(library: str) -> Any:
    """The library's module.

    Raises:
        ImportError: it is not installed; the message says what to install.
    """
    try:
        return importlib.import_module(library)
    except ImportError as error:
        name = library.partition(".")[0]
        raise ImportError(
            f"vaefast.integrations.{name} needs {PACKAGES.get(name, name)} ({error}); "
            "pip install 'vaefast[integrations]'"
        ) from error


PACKAGES = {"art": "adversarial-robustness-toolbox", "pyro": "pyro-ppl"}


def _remembered(device: Any) -> Callable[[], None]:
    """What puts torch's and numpy's global generators back to where they are now."""
    numpy_state, state = np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    on = torch.device("cpu" if device is None else device)
    own = torch.cuda.get_rng_state(on) if on.type == "cuda" else None

    def restore() -> None:
        np.random.set_state(numpy_state)  # noqa: NPY002
        torch.set_rng_state(state)
        if own is not None:
            torch.cuda.set_rng_state(own, on)

    return restore
