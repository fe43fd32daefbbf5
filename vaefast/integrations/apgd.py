"""The run of torchattacks' APGD by our ascent, in its conventions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vaefast.attacks.apgd import AutoAscent, AutoMove
from vaefast.attacks.ball import Ball
from vaefast.integrations.updates import is_number, like_library

__all__ = ["single_run"]

NORMS = {"Linf": "linf", "L2": "l2"}
ADDED = 1e-12  # to the gradient's norm


class _Ascent(AutoAscent):
    """With what the released code does beside the paper's.

    Its first rise is counted from 0, and objectives rise where they do in float32.
    """

    def __init__(self, alpha: Tensor, steps: int, **options: Any) -> None:
        super().__init__(alpha, steps, **options)
        self.move = AutoMove(ADDED, torch.float32)

    def keep(self, *state: Tensor) -> None:
        super().keep(*state)
        if self.taken == 1:
            size, *images, best, last_best, previous, rises, reduced = state
            self.kept = size, *images, best, last_best, previous * 0.0, rises, reduced


def single_run(
    attack: Any, x: Tensor, y: Tensor, theirs: Callable[[Tensor, Tensor], tuple[Tensor, ...]]
) -> tuple[Tensor, ...]:
    """One restart as ``APGD.attack_single_run`` returns it.

    Returns:
        Best points by the loss, whether a row is still classified as ``y`` at all of its points,
        the best losses, and of each row the last point that is not.
    """
    x = x if x.ndim == 4 else x.unsqueeze(0)
    y = y if y.ndim == 1 else y.unsqueeze(0)
    if attack.norm not in NORMS or not is_number(attack.eps) or attack.verbose:
        return theirs(x, y)
    return like_library(lambda: _climb(attack, x, y), lambda: theirs(x, y), attack.device)


def _climb(attack: Any, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    ball = Ball(x, *_radii(attack, x))
    point = _start(attack, ball)
    size = ball.eps.float().to(x.dtype)
    ascent = _Ascent(size, attack.steps, initial=2.0, rho=attack.thr_decr)
    loss, grad, right = _evaluated(attack, point, y)
    best, fooling, loss_best = point, point, loss
    for _ in range(attack.steps):
        point, *state = ascent.move(ball, point, grad, loss, *ascent.state())
        ascent.keep(*state)
        loss, grad, still = _evaluated(attack, point, y)
        better = loss > loss_best
        best = torch.where(ball.per_entry(better), point, best)
        loss_best = torch.where(better, loss, loss_best)
        fooling = torch.where(ball.per_entry(still), fooling, point)
        right = right & still
    return best, right, loss_best, fooling


def _radii(attack: Any, x: Tensor) -> tuple[Tensor, str, Tensor, Tensor]:
    eps = x.new_full((len(x),), attack.eps)
    if attack.norm == "L2":
        eps = eps.float().to(x.dtype)  # as the library has it
    return eps, NORMS[attack.norm], torch.zeros_like(eps), torch.ones_like(eps)


def _start(attack: Any, ball: Ball) -> Tensor:
    """A random direction of length eps from the library's own random numbers, in the box."""
    x, usual = ball.x, torch.get_default_dtype()
    if ball.norm == "linf":
        share = torch.rand(x.shape, dtype=usual, device="cpu")
        noise = 2.0 * share.to(attack.device) - 1.0
        length = noise.flatten(1).abs().amax(1)
    else:
        noise = torch.randn(x.shape, dtype=usual, device="cpu").to(attack.device)
        length = noise.flatten(1).square().sum(1).sqrt() + ADDED
    return (x + attack.eps * noise / ball.per_entry(length)).clamp(0.0, 1.0)


def _evaluated(attack: Any, point: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Loss [N] and gradient, the mean of ``eot_iter`` calls, and whether y is predicted."""
    criterion = nn.CrossEntropyLoss(reduction="none")
    if attack.loss == "dlr":
        criterion = attack.dlr_loss
    elif attack.loss != "ce":
        raise ValueError(f'loss must be "ce" or "dlr", got {attack.loss!r}')
    grad = torch.zeros_like(point)
    for _ in range(attack.eot_iter):
        with torch.enable_grad():
            variable = point.detach().requires_grad_()
            logits = attack.get_logits(variable)
            loss = criterion(logits, y)
        grad += torch.autograd.grad(loss.sum(), variable)[0]
    return loss.detach(), grad.div_(attack.eot_iter), logits.detach().argmax(1) == y
