"""Inputs that an attack of ours finds in a training step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vaefast import checks
from vaefast.attacks.result import AttackResult
from vaefast.training.step import Step
from vaefast.training.weights import check_positive

__all__ = ["check_search", "in_eval", "perturbed"]

NORMS = ("linf", "l2")
SEEDS = 1 << 62


def check_search(eps: float, norm: str, steps: int) -> None:
    """The settings of an inner search, where they are given rather than in its first step.

    Raises:
        TypeError: a number of the wrong kind.
        ValueError: ``eps`` not positive and finite, an unknown norm, or no steps.
    """
    check_positive(eps, "eps")
    checks.option(norm, "norm", NORMS)
    checks.count(steps, "steps")


def perturbed(
    attack: Callable[..., AttackResult], model: nn.Module, x: Tensor, step: Step, **options: Any
) -> Tensor:
    """x' [n, *event] that ``attack`` finds for x, with the step's random numbers; a constant.

    It attacks the model in eval mode, the one that will be attacked: dropout and the statistics of
    the batch are no part of it.
    """
    seed = int(torch.randint(SEEDS, (), generator=step.generator, device="cpu"))
    with in_eval(model):
        return attack(model, x, seed=seed, context=step.context, **options).x_adv


@contextmanager
def in_eval(model: nn.Module) -> Iterator[None]:
    """The model in eval mode; afterwards every layer's mode is as before."""
    modes = {layer: layer.training for layer in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for layer, mode in modes.items():
            layer.training = mode
