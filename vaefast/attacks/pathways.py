"""Gradients of what the defence does to an image: three of its derivatives, and none at all.

Each is a function of the points [n, *event] whose value is the mean over the chains, with the same
random numbers at every point; they differ in what autograd gets back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vaefast import philox
from vaefast.attacks.measures import Measure
from vaefast.functional.rows import repeated
from vaefast.hmc.through import Defending
from vaefast.models.prepare import Prepared

__all__ = ["PATHWAYS", "UNDEFENDED", "Defended", "Pathway", "available"]

UNDEFENDED = "undefended"  # the attack on the model itself, a candidate like the others
LAST = 20  # transitions that "last" goes back through
PROBES = 4  # pairs of images of a score-free gradient
SHARES = {"linf": 0.0, "l2": 0.5, "l1": 1.0}  # powers of D that a norm is larger by
REACH = 0.1  # of the radius, from the point to an image of a pair


@dataclass(frozen=True, eq=False)
class Defended:
    """The measure at the ends of the chains of some inputs' points.

    Args:
        part: the inputs [b, *event].
        defending: the defence.
        measure: of the ends.
        reference: what the measure compares with.
        eps: [b], the radius of the ball.
        norm: of the ball.
        seed: of the chains.
    """

    part: Prepared
    defending: Defending
    measure: Measure
    reference: Tensor
    eps: Tensor
    norm: str
    seed: int

    def value(self, point: Tensor, *, last: int | None = None) -> Tensor:
        """Mean over the chains [n] float64, differentiable through transitions from the last."""
        z = self.defending.ends(self.part, point, seed=self.seed, last=last)
        return self.of_ends(z, len(point))

    def of_ends(self, z: Tensor, points: int) -> Tensor:
        """Mean over the chains [n] float64 for z [n·C, d]."""
        return self.measure(self.part, z, self.reference).reshape(points, -1).mean(1)

    def index(self, point: Tensor) -> Tensor:
        return repeated(self.part.index, len(point) // max(len(self.part.x), 1))


Pathway = Callable[[Defended], Callable[[Tensor], Tensor]]


def _chain(of: Defended) -> Callable[[Tensor], Tensor]:
    """Through every transition and the encoder."""
    return of.value


def _last(of: Defended) -> Callable[[Tensor], Tensor]:
    """Through the last transitions alone, to a state that is held."""
    return lambda point: of.value(point, last=LAST)


def _posterior(of: Defended) -> Callable[[Tensor], Tensor]:
    """The derivative of the posterior's own expectation, to which the chains converge.

        ∂E_{p(z|x)} f(z) / ∂x = Cov_{p(z|x)}(f(z), ∂ log p(x|z)/∂x),

    estimated within each chain by its draws after the warm-up.
    """

    def value(point: Tensor) -> Tensor:
        draws = of.defending.draws(of.part, point.detach(), seed=of.seed)  # [n·C, T, d]
        with torch.no_grad():
            each = [of.measure(of.part, draws[:, t], of.reference) for t in range(draws.shape[1])]
            f = torch.stack(each, 1)  # [n·C, T] float64
            weight = f - f.mean(1, keepdim=True)
            total = of.of_ends(draws[:, -1], len(point))
        if not point.requires_grad:
            return total
        chains = f.shape[0] // max(len(point), 1)
        logp = of.part.maps.likelihood_at(draws.flatten(0, 1).contiguous()).log_prob(point)
        score = (weight.flatten() * logp).reshape(len(point), -1).sum(1)
        score = score / max(chains * (f.shape[1] - 1), 1)
        return total + (score - score.detach())

    return value


def _spsa(of: Defended) -> Callable[[Tensor], Tensor]:
    """No gradient of anything: pairs of images on opposite sides, with random signs."""
    estimate = _Pairs(of)

    def value(point: Tensor) -> Tensor:
        result: Tensor = _Estimated.apply(point, estimate)
        return result

    return value


@dataclass(eq=False)
class _Pairs:
    """(f(x + cs) − f(x − cs)) / 2c · s, a mean over PROBES random vectors of signs s.

    Source: Spall, "Multivariate stochastic approximation using a simultaneous perturbation
    gradient approximation" (1992).
    """

    of: Defended
    step: int = field(default=0)  # how many were estimated: each takes signs of its own

    @torch.no_grad()
    def gradient(self, point: Tensor) -> Tensor:
        of, flat = self.of, point.flatten(1)
        radius = repeated(of.eps, len(point) // max(len(of.eps), 1)).to(flat)
        reach = REACH * (radius / flat.shape[1] ** SHARES[of.norm])[:, None]
        total = torch.zeros_like(flat)
        for probe in range(PROBES):
            u = philox.uniform(
                flat.shape[1], seed=of.seed, index=of.index(point),
                step=self.step * PROBES + probe, use=philox.Use.PROBE,
            )  # fmt: skip
            signs = torch.where(u < 0.5, -1.0, 1.0).to(flat)
            up, down = ((flat + s * reach * signs).view_as(point) for s in (1.0, -1.0))
            slope = (of.value(up) - of.value(down)).to(flat)[:, None] / (2.0 * reach)
            total += slope.masked_fill(reach == 0, 0.0) * signs / PROBES
        self.step += 1
        return total.view_as(point)


class _Estimated(torch.autograd.Function):
    """A value whose gradient is estimated."""

    @staticmethod
    def forward(ctx: Any, point: Tensor, estimate: _Pairs) -> Tensor:
        ctx.save_for_backward(point)
        ctx.estimate = estimate
        with torch.no_grad():
            return estimate.of.value(point)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        (point,) = ctx.saved_tensors
        scale = upstream[0].reshape(-1, *[1] * (point.ndim - 1))
        return ctx.estimate.gradient(point) * scale.to(point.dtype), None


PATHWAYS: dict[str, Pathway] = {
    "chain": _chain,
    "last": _last,
    "posterior": _posterior,
    "spsa": _spsa,
}


def available(defending: Defending, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the wanted ones that the decoder has, in the order of PATHWAYS.

    "last" of a chain that is no longer than that is "chain"; a covariance needs two draws.
    """
    names = [name for name in (UNDEFENDED, *PATHWAYS) if name in wanted]
    if not defending.differentiable:
        names = [name for name in names if name not in ("chain", "last")]
    if defending.options.steps < 2:
        names = [name for name in names if name != "posterior"]
    if "chain" in names and defending.options.transitions <= LAST:
        names = [name for name in names if name != "last"]
    return tuple(names)
