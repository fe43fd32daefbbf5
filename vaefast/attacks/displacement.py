"""What the geometric attack moves: the mean latent, the posterior, or the reconstruction."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vaefast.attacks.divergences import skl
from vaefast.attacks.search import Bound, Value
from vaefast.functional.rows import repeated
from vaefast.models.maps import Maps
from vaefast.models.prepare import Prepared

__all__ = ["Displacement"]


class Displacement:
    """‖μ(x') − μ(x)‖₂, ‖g(μ(x')) − g(μ(x))‖₂, or SKL(q(z|x'), q(z|x)) in nats for "fisher".

    Args:
        prepared: the inputs.
        of: the metric that describes it to second order.
    """

    ops: tuple[str, ...] = ("net_forward", "net_vjp")
    width = 1

    def __init__(self, prepared: Prepared, of: str) -> None:
        maps, itemsize = prepared.maps, prepared.itemsize
        parts = [maps.mean, maps.pixels] if of == "reconstruction" else [maps.mean]
        self.of = of
        self.modules: tuple[object, ...] = (prepared.vae,)
        self.generic = maps.generic("encoder", *(["pixels"] if len(parts) > 1 else []))
        self.cost = sum(part.bytes_per_row(itemsize) for part in parts)

    def bytes_per_row(self) -> int:
        return self.cost

    def bind(self, part: Prepared) -> tuple[Bound, Value]:
        moved = _Moved(part.maps, self.of)
        bound = Bound(moved, tuple(t.detach() for t in moved.outputs(part.x)))
        return bound, bound


@dataclass(frozen=True)
class _Moved:
    """Its constants are the outputs at the inputs [b, ...], the points [b·k, *event] theirs."""

    maps: Maps
    of: str

    def outputs(self, point: Tensor) -> tuple[Tensor, ...]:
        if self.of == "reconstruction":
            return (self.maps.reconstruct(point).flatten(1),)
        mean, logvar = self.maps.encode(point)
        return (mean, logvar) if self.of == "fisher" else (mean,)

    def __call__(self, point: Tensor, *constants: Tensor) -> Tensor:
        outputs = self.outputs(point)
        restarts = len(point) // max(len(constants[0]), 1)
        at_x = [repeated(t, restarts) for t in constants]
        if self.of == "fisher":
            return skl(*outputs, *at_x)
        return torch.linalg.vector_norm((outputs[0] - at_x[0]).double(), dim=1)
