"""One map of a VAE and products with its Jacobian, per input.

All classes take points [b, n] and work on flattened events; probes stand in dimension 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from vaefast import ops
from vaefast.models import derivatives
from vaefast.models.footprint import WORKING
from vaefast.models.packs import Packs
from vaefast.ops.net_forward import tape_bytes, with_tape
from vaefast.ops.net_vjp import pulled
from vaefast.runtime import memory
from vaefast.types import Network

__all__ = ["HalfMap", "Map", "ModuleMap", "NetworkMap"]

GRAM_ROWS = 1024  # of Jacobians in float64 at once: more of them leave the caches


class Map(Protocol):
    """A function of b points [b, n] with m outputs.

    Args:
        lowered: the network that the ops take, or None where a module computes the values.
        why_not: what stands in the way of that; empty where nothing does.
    """

    @property
    def lowered(self) -> Network | None: ...

    @property
    def why_not(self) -> str: ...

    @property
    def outputs(self) -> int: ...

    def bytes_per_row(self, itemsize: int, probes: int = 0) -> int:
        """What one row takes with its backward pass, and with so many products."""

    def value(self, x: Tensor) -> Tensor:
        """[b, n] -> [b, m], differentiable once."""

    def vjp(self, x: Tensor, u: Tensor) -> Tensor:
        """Jᵀu, [b, K, m] -> [b, K, n]."""

    def vjp_squares(self, x: Tensor, u: Tensor) -> Tensor:
        """‖Jᵀu‖², [b, K, m] -> [b, K] float64."""

    def jvp(self, x: Tensor, v: Tensor) -> Tensor:
        """Jv, [b, K, n] -> [b, K, m]."""

    def jvp_squares(self, x: Tensor, v: Tensor) -> Tensor:
        """‖Jv‖², [b, K, n] -> [b, K] float64."""

    def gram(self, x: Tensor, inv_std: Tensor | None = None) -> Tensor:
        """diag(inv_std) JJᵀ diag(inv_std), [b, m, m] float64."""

    def row_squares(self, x: Tensor, inv_std: Tensor | None = None) -> Tensor:
        """Its diagonal [b, m]: ‖·‖² of J's rows, each times inv_std."""


class NetworkMap(NamedTuple):
    """A lowered network, by the fused ops.

    Args:
        lowered: the network.
        name: of its weights, in ``packs``.
        packs: of the VAE.
        precision: the lowest that a backend may use for the Jacobian's products; values, which
            are the points of further maps and σ, stay at full precision.
    """

    lowered: Network
    name: str
    packs: Packs
    precision: str = "ieee"
    why_not: str = ""

    @property
    def outputs(self) -> int:
        return self.lowered.out_features

    def bytes_per_row(self, itemsize: int, probes: int = 0) -> int:
        net = self.lowered
        widths = net.in_features + sum(layer.out_features for layer in net.parsed())
        ends = 4 * probes * (net.in_features + net.out_features)
        return itemsize * (WORKING * widths + ends) + tape_bytes(net)

    def packed(self, *, backward: bool = False) -> Network:
        """The network for an op; ``backward`` where rows also pass back through all of it."""
        return self.packs.packed(self.name, self.lowered, backward=backward)

    def value(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            return _Value.apply(x, self.packed(backward=True))
        return ops.net_forward(x, self.packed())

    def vjp(self, x: Tensor, u: Tensor) -> Tensor:
        return self._vjp(x, u, full=True)[2]

    def vjp_squares(self, x: Tensor, u: Tensor) -> Tensor:
        return self._vjp(x, u)[1].double()

    def jvp(self, x: Tensor, v: Tensor) -> Tensor:
        return ops.net_jvp(x, v, self.packed(), full=True, precision=self.precision)[2]

    def jvp_squares(self, x: Tensor, v: Tensor) -> Tensor:
        return ops.net_jvp(x, v, self.packed(), precision=self.precision)[1].double()

    def gram(self, x: Tensor, inv_std: Tensor | None = None) -> Tensor:
        net, precision = self.packed(), self.precision
        return ops.net_jacobian_gram(x, net, inv_std=inv_std, precision=precision).double()

    def row_squares(self, x: Tensor, inv_std: Tensor | None = None) -> Tensor:
        return self.gram(x, inv_std).diagonal(dim1=1, dim2=2)

    def _vjp(self, x: Tensor, u: Tensor, *, full: bool = False) -> tuple[Tensor, ...]:
        return ops.net_vjp(x, u, self.packed(backward=True), full=full, precision=self.precision)


class _Value(torch.autograd.Function):
    """A network's value and one derivative in its input.

    As ``ops.net_forward`` differentiates, without the dispatcher's way to a registered derivative,
    which costs more than a small network.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, net: Network) -> Tensor:
        out, tape = with_tape(x, net)
        ctx.save_for_backward(x, tape)
        ctx.net = net
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        x, tape = ctx.saved_tensors
        return pulled(x, upstream.contiguous(), ctx.net, tape), None


@dataclass(frozen=True)
class ModuleMap:
    """Any differentiable function of a batch, by automatic differentiation.

    Args:
        function: [b, *event] -> [b, ...], row i of the result a function of row i alone.
        event: shape of one input.
        outputs: entries of one result.
        working: gives the bytes that one row of the function and its derivative take.
        why_not: what keeps it from the ops.
    """

    function: Callable[[Tensor], Tensor]
    event: torch.Size
    outputs: int
    working: Callable[[], int]
    why_not: str

    @property
    def lowered(self) -> None:
        return None

    def bytes_per_row(self, itemsize: int, probes: int = 0) -> int:
        return self.working() + probes * self._bytes_per_probe(itemsize)

    def value(self, x: Tensor) -> Tensor:
        return self.function(x.reshape(-1, *self.event)).flatten(1)

    def vjp(self, x: Tensor, u: Tensor) -> Tensor:
        """By backward passes; where the function has none, by forward mode."""
        return self._pulled(x, u, lambda part: part)

    def vjp_squares(self, x: Tensor, u: Tensor) -> Tensor:
        return self._pulled(x, u, _squares)

    def jvp(self, x: Tensor, v: Tensor) -> Tensor:
        """By forward mode where it agrees with backward passes, else by these."""
        x = x.detach()
        if not (len(x) and v.shape[1]):
            return x.new_zeros(*v.shape[:2], self.outputs)
        push = self._push(x)
        return torch.cat([push(self.value, x, v[:, p]) for p in self._probes(x, v)], dim=1)

    def jvp_squares(self, x: Tensor, v: Tensor) -> Tensor:
        return _squares(self.jvp(x, v))

    def gram(self, x: Tensor, inv_std: Tensor | None = None) -> Tensor:
        rows = self.vjp(x, self._units(x))
        most = memory.cached(self.outputs, x, GRAM_ROWS)
        parts = list(memory.row_chunks(len(x), 1, most)) or [slice(0, 0)]
        found = [_gram(rows[p], None if inv_std is None else inv_std[p]) for p in parts]
        return found[0] if len(found) == 1 else torch.cat(found)

    def row_squares(self, x: Tensor, inv_std: Tensor | None = None) -> Tensor:
        squares = self.vjp_squares(x, self._units(x))
        return squares if inv_std is None else squares * inv_std.double().square()

    def obstacle(self, x: Tensor) -> str:
        """What keeps products with the Jacobian at x [b, n] from being taken, or nothing."""
        return derivatives.obstacle(self.value, x)

    def _units(self, x: Tensor) -> Tensor:
        return torch.eye(self.outputs, dtype=x.dtype, device=x.device).expand(len(x), -1, -1)

    def _bytes_per_probe(self, itemsize: int) -> int:
        """What a probe has in flight besides: no more than the layers' values once."""
        return self.working() // WORKING + 4 * itemsize * (self.event.numel() + self.outputs)

    def _probes(self, x: Tensor, u: Tensor) -> Iterator[slice]:
        """As many at once as the memory budget holds, and as pays."""
        cost = len(x) * self._bytes_per_probe(x.element_size())
        return memory.row_chunks(u.shape[1], cost, memory.cached(len(x), x, derivatives.ROWS))

    def _pulled(self, x: Tensor, u: Tensor, of: Callable[[Tensor], Tensor]) -> Tensor:
        """``of`` the products Jᵀu, [b, K, ...], a part of the probes at a time."""
        if not (len(x) and u.shape[1]):
            return of(x.new_zeros(*u.shape[:2], x.shape[1]))
        probes = list(self._probes(x, u))
        try:
            return torch.cat([of(p) for p in derivatives.pulled(self.value, x, u, probes)], dim=1)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # an operation without a backward
            try:
                parts = [derivatives.pull_by_units(self.value, x, u[:, p]) for p in probes]
            except RuntimeError:
                raise error from None
            return torch.cat([of(part) for part in parts], dim=1)

    def _push(self, x: Tensor) -> derivatives.Push:
        """The way to Jv, chosen at the map's first points."""
        if "way" not in self.__dict__:
            self.__dict__["way"] = derivatives.trusted(self.value, x)
        return self.__dict__["way"]


def _gram(rows: Tensor, inv_std: Tensor | None) -> Tensor:
    """diag(inv_std) RRᵀ diag(inv_std) of matrices R [b, m, n], [b, m, m] float64."""
    rows = rows.double()
    if inv_std is not None:
        rows = rows * inv_std.double().unsqueeze(-1)
    return rows @ rows.mT


def _squares(products: Tensor) -> Tensor:
    """‖·‖² of each, [b, K] float64."""
    return torch.linalg.vector_norm(products, dim=-1, dtype=torch.float64).square()


@dataclass(frozen=True)
class HalfMap(ModuleMap):
    """A module in half precision that lowers: its own values, the Jacobian's products in float32.

    Products square the weights' entries, for which half precision has no room.

    Args:
        products: the network with its weights as float32.
    """

    products: NetworkMap

    def vjp(self, x: Tensor, u: Tensor) -> Tensor:
        return self.products.vjp(x.float(), u.float()).to(x.dtype)

    def vjp_squares(self, x: Tensor, u: Tensor) -> Tensor:
        return self.products.vjp_squares(x.float(), u.float())

    def jvp(self, x: Tensor, v: Tensor) -> Tensor:
        return self.products.jvp(x.float(), v.float()).to(x.dtype)

    def jvp_squares(self, x: Tensor, v: Tensor) -> Tensor:
        return self.products.jvp_squares(x.float(), v.float())

    def gram(self, x: Tensor, inv_std: Tensor | None = None) -> Tensor:
        return self.products.gram(x.float(), None if inv_std is None else inv_std.float())

    def row_squares(self, x: Tensor, inv_std: Tensor | None = None) -> Tensor:
        return self.gram(x, inv_std).diagonal(dim1=1, dim2=2)
