"""Forward-mode derivatives and torch.func on the ops: a rule, or one line that says the way out.

Below the dispatcher a tangent is lost without a word, so every kernel refuses tensors that carry
one. Ops with a forward rule take the tangent of their first argument off before that, and put the
results' tangents on after. ``backend="reference"`` runs in plain sight of every transform.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._pytree import tree_leaves

from vaefast.runtime import backends
from vaefast.runtime.observers import dual_level, in_transform

__all__ = ["Push", "active", "over_probes", "refuse_tangents", "refuse_vmap", "under_transforms"]

Push = Callable[[Any, Tensor, Any], tuple[Tensor, ...]]  # call, first argument's tangent, results


def active() -> bool:
    """Whether torch.func transforms or forward-mode derivatives are in progress here.

    A graph that torch.compile makes has its rules in the dispatcher.
    """
    return not torch.compiler.is_compiling() and (dual_level() or in_transform())


def under_transforms(
    name: str,
    implementations: dict[str, Callable[[Any], Any]],
    push: Push | None,
    run: Callable[[Any], Any],
) -> Callable[[Any], Any]:
    """What an op does to a checked Call where a transform is in progress.

    Args:
        name: the op's.
        implementations: by backend; "reference" knows all transforms.
        push: the results' tangents, from the first argument's.
        run: the op on a Call.
    """

    def call_op(call: Any) -> Any:
        if backends.named(call[-1]) == "reference":
            return implementations["reference"](call)
        if push is not None and _tangent(call[0]) is not None:
            return _pushed(name, push, call, run)
        refuse_tangents(name, call)
        if in_transform() and _wants_grad(call):
            raise RuntimeError(
                f'{name} has no derivative under torch.func; use backend="reference", or '
                "torch.autograd.grad"
            )
        return run(call)

    return call_op


def _pushed(name: str, push: Push, call: Any, run: Callable[[Any], Any]) -> Any:
    """The op's results with their tangents, where its first argument alone has one."""
    field = call._fields[0]
    refuse_tangents(name, call[1:], f" but in {field}")
    primal, tangent = forward_ad.unpack_dual(call[0])
    plain = call._replace(**{field: primal})
    if _wants_grad(plain):
        raise RuntimeError(
            f'{name} has no derivative of its forward-mode derivative; use backend="reference"'
        )
    results = run(plain)
    values = (results,) if isinstance(results, Tensor) else tuple(results)
    assert tangent is not None
    duals = [forward_ad.make_dual(*pair) for pair in zip(values, push(plain, tangent, values))]
    return duals[0] if isinstance(results, Tensor) else tuple(duals)


def _tangent(t: Any) -> Tensor | None:
    return forward_ad.unpack_dual(t).tangent if isinstance(t, Tensor) else None


def _wants_grad(call: Any) -> bool:
    if not torch.is_grad_enabled():
        return False
    return any(isinstance(t, Tensor) and t.requires_grad for t in tree_leaves(call))


def refuse_tangents(name: str, arguments: Any, where: str = "") -> None:
    """Raise where arguments carry tangents, which the op would drop."""
    if not dual_level():
        return
    if any(_tangent(t) is not None for t in tree_leaves(arguments)):
        raise RuntimeError(
            f'{name} has no forward-mode derivative{where}; use backend="reference", or '
            "ops.net_jvp for a network's"
        )


def refuse_vmap(name: str) -> Callable[..., Any]:
    """A batching rule that says the way out."""

    def refuse(info: Any, in_dims: Any, *arguments: Any) -> Any:
        raise RuntimeError(
            f"{name} cannot run under vmap; every op takes a batch, pass all rows in one call, or "
            'use backend="reference"'
        )

    return refuse


def over_probes(op: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The batching rule of net_jvp and net_vjp: many probes are more probes, of the same inputs."""
    refuse = refuse_vmap(name)

    def rule(info: Any, in_dims: Any, x: Tensor, v: Tensor, *others: Any) -> Any:
        if in_dims[1] is None or any(d is not None for d in tree_leaves((in_dims[0], in_dims[2:]))):
            return refuse(info, in_dims)
        v = v.movedim(in_dims[1], -3)  # [B, n, K, D], or [n, K, D] for all inputs
        y, sq, products = op(x, v.flatten(-3, -2), *others)
        sizes = v.shape[-3:-1]
        return (y, sq.unflatten(1, sizes), _unflatten(products, sizes)), (None, 1, 1)

    return rule


def _unflatten(products: Tensor, sizes: torch.Size) -> Tensor:
    """[B, n·K, d] as [B, n, K, d]; as many empty ones where no products were asked for."""
    if products.shape[1]:
        return products.unflatten(1, sizes)
    return products.new_empty((len(products), sizes[0], 0, products.shape[2]))
