"""Products with the Jacobian of one map, per input: of a lowered MLP, or of any module.

Both classes take points [b, n] and work on flattened events; probes stand in dimension 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from vaefast import ops
from vaefast.models.packs import Packs
from vaefast.runtime import memory
from vaefast.types import Network

__all__ = ["Map", "ModuleMap", "NetworkMap"]


class NetworkMap(NamedTuple):
    """A lowered MLP, by the fused ops.

    Args:
        net: the network.
        name: of its weights, in ``packs``.
        packs: of the VAE.
        precision: the lowest that a backend may use for the Jacobian's products; values, which
            are the points of further maps and σ, stay at full precision.
    """

    net: Network
    name: str
    packs: Packs
    precision: str = "ieee"

    @property
    def outputs(self) -> int:
        return self.net.out_features

    def bytes_per_row(self, n: int, probes: int, itemsize: int) -> int:
        return 4 * itemsize * probes * (n + self.outputs)

    def packed(self, *, backward: bool = False) -> Network:
        """The network for an op; ``backward`` where rows also pass back through all of it."""
        return self.packs.packed(self.name, self.net, backward=backward)

    def value(self, x: Tensor) -> Tensor:
        """[b, n] -> [b, m]."""
        return ops.net_forward(x, self.packed())

    def vjp(self, x: Tensor, u: Tensor) -> Tensor:
        """Jᵀu, [b, K, m] -> [b, K, n]."""
        return self._vjp(x, u, full=True)[2]

    def vjp_squares(self, x: Tensor, u: Tensor) -> Tensor:
        """‖Jᵀu‖², [b, K, m] -> [b, K] float64."""
        return self._vjp(x, u)[1].double()

    def jvp(self, x: Tensor, v: Tensor) -> Tensor:
        """Jv, [b, K, n] -> [b, K, m]."""
        return ops.net_jvp(x, v, self.packed(), full=True, precision=self.precision)[2]

    def jvp_squares(self, x: Tensor, v: Tensor) -> Tensor:
        """‖Jv‖², [b, K, n] -> [b, K] float64."""
        return ops.net_jvp(x, v, self.packed(), precision=self.precision)[1].double()

    def gram(self, x: Tensor, inv_std: Tensor | None = None) -> Tensor:
        """diag(inv_std) JJᵀ diag(inv_std), [b, m, m] float64."""
        net, precision = self.packed(), self.precision
        return ops.net_jacobian_gram(x, net, inv_std=inv_std, precision=precision).double()

    def _vjp(self, x: Tensor, u: Tensor, *, full: bool = False) -> tuple[Tensor, ...]:
        return ops.net_vjp(x, u, self.packed(backward=True), full=full, precision=self.precision)


class ModuleMap(NamedTuple):
    """Any differentiable function of a batch, by automatic differentiation.

    Args:
        function: [b, *event] -> [b, ...], row i of the result a function of row i alone.
        event: shape of one input.
        outputs: entries of one result.
        working: bytes that one row of the function and its derivative take.
    """

    function: Callable[[Tensor], Tensor]
    event: torch.Size
    outputs: int
    working: int

    def bytes_per_row(self, n: int, probes: int, itemsize: int) -> int:
        return self.working + probes * self.bytes_per_probe(n, itemsize)

    def bytes_per_probe(self, n: int, itemsize: int) -> int:
        """What a probe has in flight besides: no more than the layers' values once."""
        return self.working // 3 + 4 * itemsize * (n + self.outputs)

    def value(self, x: Tensor) -> Tensor:
        """[b, n] -> [b, m]."""
        with torch.no_grad():
            return self._flat(x)

    def vjp(self, x: Tensor, u: Tensor) -> Tensor:
        """Jᵀu, [b, K, m] -> [b, K, n]: one forward pass, K backward passes in a batch."""
        with torch.enable_grad():
            point = x.detach().requires_grad_()
            y = self._flat(point)
        if not (y.requires_grad and u.shape[1]):  # a constant std, or no probes
            return x.new_zeros(*u.shape[:2], x.shape[1])
        return torch.cat([_pull(y, point, u[:, part]) for part in self._probes(x, u)], dim=1)

    def vjp_squares(self, x: Tensor, u: Tensor) -> Tensor:
        """‖Jᵀu‖², [b, K, m] -> [b, K] float64."""
        return self.vjp(x, u).double().square().sum(-1)

    def jvp(self, x: Tensor, v: Tensor) -> Tensor:
        """Jv, [b, K, n] -> [b, K, m]: forward mode, K tangents in a batch."""
        return torch.cat([self._push(x.detach(), v[:, p]) for p in self._probes(x, v)], dim=1)

    def jvp_squares(self, x: Tensor, v: Tensor) -> Tensor:
        """‖Jv‖², [b, K, n] -> [b, K] float64."""
        return self.jvp(x, v).double().square().sum(-1)

    def gram(self, x: Tensor, inv_std: Tensor | None = None) -> Tensor:
        """diag(inv_std) JJᵀ diag(inv_std), [b, m, m] float64."""
        unit = torch.eye(self.outputs, dtype=x.dtype, device=x.device).expand(len(x), -1, -1)
        rows = self.vjp(x, unit).double()
        if inv_std is not None:
            rows = rows * inv_std.double().unsqueeze(-1)
        return rows @ rows.mT

    def is_connected(self, x: Tensor) -> bool:
        """Whether autograd sees the result depend on the point, at x [b, n]."""
        with torch.enable_grad():
            point = x.detach().requires_grad_()
            y = self._flat(point)
            if not y.requires_grad:
                return False
            return torch.autograd.grad(y.sum(), point, allow_unused=True)[0] is not None

    def _flat(self, x: Tensor) -> Tensor:
        return self.function(x.reshape(-1, *self.event)).flatten(1)

    def _probes(self, x: Tensor, u: Tensor) -> Iterator[slice]:
        per_probe = self.bytes_per_probe(x.shape[1], x.element_size())
        return memory.row_chunks(u.shape[1], len(x) * per_probe)

    def _push(self, x: Tensor, v: Tensor) -> Tensor:
        def product(tangent: Tensor) -> Tensor:
            return torch.func.jvp(self._flat, (x,), (tangent,))[1]

        try:
            return torch.func.vmap(product, in_dims=1, out_dims=1)(v)
        except (RuntimeError, NotImplementedError):  # a layer without a forward-mode rule
            return _push_by_two_pulls(self._flat, x, v)


Map = NetworkMap | ModuleMap


def _pull(y: Tensor, point: Tensor, u: Tensor) -> Tensor:
    """Jᵀu for all probes, [b, K, m] -> [b, K, n]."""
    cotangents = u.transpose(0, 1)
    try:
        return _grad(y, point, cotangents, is_grads_batched=True).transpose(0, 1)
    except RuntimeError:  # a layer without a batching rule
        return torch.stack([_grad(y, point, c) for c in cotangents], dim=1)


def _grad(y: Tensor, point: Tensor, cotangent: Tensor, **options: bool) -> Tensor:
    return torch.autograd.grad(
        y, point, cotangent, retain_graph=True, materialize_grads=True, **options
    )[0]


def _push_by_two_pulls(function: Callable[[Tensor], Tensor], x: Tensor, v: Tensor) -> Tensor:
    """Jv as the derivative of u ↦ Jᵀu, which is linear: reverse mode twice."""
    with torch.enable_grad():
        point = x.detach().requires_grad_()
        y = function(point)
        u = torch.zeros_like(y, requires_grad=True)
        pulled = torch.autograd.grad(y, point, u, create_graph=True, materialize_grads=True)[0]
    return torch.stack([_grad(pulled, u, tangent) for tangent in v.unbind(1)], dim=1)
