"""Starting points along the dominant eigenvector of a pullback metric."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from vaefast import checks
from vaefast.attacks.ball import Ball
from vaefast.attacks.search import Given, Search
from vaefast.geometry.spectrum import spectrum
from vaefast.models.prepare import Prepared

__all__ = ["INITS", "RESTART", "along", "with_geometric_restart"]

INITS = ("random", "geometric")
RESTART = 1  # the first restart stays a random one


def with_geometric_restart(
    search: Search, prepared: Prepared, init: str, of: str, *, std: bool = False
) -> Search:
    """The search, with ``init="geometric"`` restart 1 of it from the stronger of x ± eps·v₁.

    Args:
        of: the metric whose eigenvector v₁ is.

    Raises:
        ValueError: unknown ``init``, or a search of one restart.
    """
    checks.option(init, "init", INITS)
    if init == "random":
        return search
    if search.restarts < 2:
        raise ValueError(
            'init="geometric" is restart 1, after the random one: it needs restarts of at least '
            f"2, got {search.restarts}"
        )
    direction = spectrum(prepared, of, std=std).vectors[:, :1]
    ball = Ball(prepared.x, search.eps, search.norm, search.low, search.high)
    return replace(search, given=Given(along(ball, direction), RESTART))


def along(ball: Ball, directions: Tensor) -> Tensor:
    """x ± the step along each of k directions [N, k, *event] that stays in ball and box.

    Of length eps; in ℓ∞ eps·sign(v), the corner of the ball in which ⟨v, δ⟩ is largest.

    Returns:
        [N, 2k, *event], +v₁, −v₁, +v₂, ...; x itself where a direction is 0.
    """
    unit = directions.sign() if ball.norm == "linf" else directions
    step = ball.per_entry(ball.eps).unsqueeze(1) * unit
    both = torch.stack([step, -step], dim=2).flatten(1, 2)
    points = [ball.project_((ball.x + delta).contiguous()) for delta in both.unbind(1)]
    return torch.stack(points, dim=1)
