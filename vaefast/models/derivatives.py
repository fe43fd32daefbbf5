"""Products with the Jacobian of a module's function, by automatic differentiation.

Backward passes are the measure: they are what the module is trained with. Forward mode is silently
0 behind a ``torch.autograd.Function`` whose backward was marked ``once_differentiable`` or leaves
torch, and may be declared wrongly, so every other way to Jv has to agree with them first.

Functions map points [b, n] to [b, m], row i of the result a function of row i alone; probes stand
in dimension 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from vaefast.runtime import memory
from vaefast.runtime.numerics import twice_differentiable, without_fallback_warnings

__all__ = ["Function", "Push", "obstacle", "pull", "pull_by_units", "pulled", "trusted"]

Function = Callable[[Tensor], Tensor]
Push = Callable[[Function, Tensor, Tensor], Tensor]  # (function, x, v [b, K, n]) -> Jv [b, K, m]

ROWS = 160  # at once in backward passes: they fill the processors and stay in their caches
ULPS = 1e3  # by which ⟨u, Jv⟩ and ⟨Jᵀu, v⟩ may differ, of the sum of their terms' magnitudes


def pull(function: Function, x: Tensor, u: Tensor) -> Tensor:
    """Jᵀu [b, K, n] for u [b, K, m]: one forward pass, K backward passes in a batch."""
    return next(pulled(function, x, u, [slice(None)]))


def pulled(function: Function, x: Tensor, u: Tensor, probes: list[slice]) -> Iterator[Tensor]:
    """Jᵀu for some of the K probes at a time, [b, k, n], for u [b, K, m] and one forward pass.

    0 where the function does not depend on x.
    """
    with torch.enable_grad():
        point = x.detach().requires_grad_()
        y = function(point)
    cotangents = u.transpose(0, 1)
    for part in probes:
        if y.requires_grad:
            yield _pulled(y, point, cotangents[part]).transpose(0, 1)
        else:
            yield torch.zeros_like(u[:, part, :1]).expand(-1, -1, x.shape[1])


def _pulled(y: Tensor, point: Tensor, cotangents: Tensor) -> Tensor:
    if len(cotangents) > 1:
        try:
            with without_fallback_warnings():
                return torch.func.vmap(lambda c: _grad(y, point, c))(cotangents)
        except torch.OutOfMemoryError:
            raise
        except Exception:
            pass
    return torch.stack([_grad(y, point, c) for c in cotangents])


def push_forward(function: Function, x: Tensor, v: Tensor) -> Tensor:
    """Jv by forward mode, K tangents in a batch."""

    def product(tangent: Tensor) -> Tensor:
        return torch.func.jvp(function, (x,), (tangent,))[1]

    with twice_differentiable():
        return torch.func.vmap(product, in_dims=1, out_dims=1)(v)


def push_by_two_pulls(function: Function, x: Tensor, v: Tensor) -> Tensor:
    """Jv as the derivative of u ↦ Jᵀu, which is linear: reverse mode twice."""
    with twice_differentiable(), torch.enable_grad():
        point = x.detach().requires_grad_()
        y = function(point)
        u = torch.zeros_like(y, requires_grad=True)
        pulled = torch.autograd.grad(y, point, u, create_graph=True, materialize_grads=True)[0]
        return torch.stack([_grad(pulled, u, tangent) for tangent in v.unbind(1)], dim=1)


def push_by_units(function: Function, x: Tensor, v: Tensor) -> Tensor:
    """Jv from the rows of J: m backward passes, within the memory budget."""
    outputs = function(x[:1]).shape[1]
    return _transposed(lambda u: pull(function, x, u), x, v, outputs)


def pull_by_units(function: Function, x: Tensor, u: Tensor) -> Tensor:
    """Jᵀu from the columns of J: n products in forward mode, within the memory budget."""
    return _transposed(lambda v: push_forward(function, x, v), x, u, x.shape[1])


def trusted(function: Function, x: Tensor) -> Push:
    """The first way to Jv that agrees with a backward pass at one of the points x [b, n].

    ⟨u, Jv⟩ = ⟨Jᵀu, v⟩ for one random pair at the first point; at all of them where that says
    nothing, as both are 0 or not finite there. Where there are no backward passes, forward mode.

    Raises:
        ValueError: there is no forward mode either.
    """
    for points in (x[:1], x):
        try:
            check = _Adjoint(function, points)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if reason := _only_forward(function, points, error):
                raise ValueError(f"the map {reason}") from error
            return push_forward
        if check.says_something:
            break
    return next(way for way in (push_forward, push_by_two_pulls, push_by_units) if check(way))


def obstacle(function: Function, x: Tensor) -> str:
    """What keeps products with J at x [b, n] from being taken, or nothing."""
    try:
        with torch.enable_grad():
            point = x.detach().requires_grad_()
            y = function(point)
            if y.requires_grad:
                (found,) = torch.autograd.grad(y.sum(), point, allow_unused=True)
                if found is not None:
                    return ""
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        return _only_forward(function, x, error)
    return "must depend on its input through autograd; remove torch.no_grad() and .detach() from it"


class _Adjoint:
    """Whether a way to Jv is the adjoint of the backward passes at the points x [b, n].

    Probes of two lengths give the rounding of the function's own arithmetic, which may be in
    half precision: lengths 1 and 3 round differently.
    """

    def __init__(self, function: Function, x: Tensor) -> None:
        self.function, self.x = function, x
        draw = torch.Generator(device="cpu").manual_seed(0)
        self.v = _normal(x.shape[1], draw, x)
        self.u = _normal(function(x[:1]).shape[1], draw, x)
        once, thrice = (
            pull(function, x, torch.stack([self.u, 3 * self.u], dim=1)).double().unbind(1)
        )
        self.terms = once * self.v.double()
        length = torch.linalg.vector_norm(self.v.double(), dim=1)
        self.noise = 10 * torch.linalg.vector_norm(thrice / 3 - once, dim=1) * length

    @property
    def says_something(self) -> bool:
        return bool((self.terms.isfinite() & (self.terms != 0)).any())

    def __call__(self, way: Push) -> bool:
        if way is push_by_units:  # made of backward passes
            return True
        try:
            pushed = way(self.function, self.x, self.v.unsqueeze(1))[:, 0]
        except Exception:  # a layer without the rule
            return False
        terms = pushed.double() * self.u.double()
        size = terms.abs().sum(1) + self.terms.abs().sum(1)
        allowed = ULPS * torch.finfo(self.x.dtype).eps * size + self.noise
        agree = (terms.sum(1) - self.terms.sum(1)).abs() <= allowed
        return bool((agree | ~self.terms.isfinite().all(1)).all())


def _normal(size: int, draw: torch.Generator, like: Tensor) -> Tensor:
    """One vector from N(0, I) for every row, [b, size]."""
    vector = torch.randn(size, generator=draw, dtype=torch.float64, device="cpu")
    return vector.to(like).expand(len(like), -1)


def _grad(y: Tensor, point: Tensor, cotangent: Tensor) -> Tensor:
    return torch.autograd.grad(y, point, cotangent, retain_graph=True, materialize_grads=True)[0]


def _transposed(product: Function, x: Tensor, w: Tensor, size: int) -> Tensor:
    """Aᵀw [b, K, size] for w [b, K, k], from products u [b, c, size] ↦ Au [b, c, k]."""
    unit = torch.eye(size, dtype=x.dtype, device=x.device)
    width = 4 * x.element_size() * len(x) * (size + w.shape[2])
    parts = memory.row_chunks(size, max(width, 1))
    return torch.cat([w @ product(unit[p].expand(len(x), -1, -1)).mT for p in parts], dim=2)


def _only_forward(function: Function, x: Tensor, error: RuntimeError) -> str:
    """Why forward mode cannot stand in for backward passes that gave ``error``, or nothing."""
    if len(x) and _moves_as_differences(function, x[:1]):
        return ""
    reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    return (
        f"has a derivative neither by backward nor by forward mode ({reason}); "
        "give the operation in it a backward (torch.library.register_autograd)"
    )


def _moves_as_differences(function: Function, x: Tensor) -> bool:
    """Whether Jv by forward mode is the slope of the function along v, to 5 %."""
    v = _normal(x.shape[1], torch.Generator(device="cpu").manual_seed(0), x)
    eps = torch.finfo(x.dtype).eps
    step = eps ** (1 / 3)
    try:
        pushed = push_forward(function, x, v.unsqueeze(1))[:, 0].double()
    except RuntimeError:
        return False
    ends = function(x + step * v).double(), function(x - step * v).double()
    slope = (ends[0] - ends[1]) / (2 * step)
    rounding = 10 * eps / step * ends[0].norm()
    return bool((pushed - slope).norm() <= 0.05 * slope.norm() + rounding)
