"""Derivatives of registered ops: one by closed forms and fast ops, none by refusing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from vaefast.ops._register import library, refuse_grad
from vaefast.runtime import backends
from vaefast.types import Network

__all__ = [
    "Pulled",
    "differentiable_once",
    "reference_named",
    "tensors_of",
    "through_reference",
    "with_biases",
]


def tensors_of(net: Network) -> list[Tensor]:
    return [*net.weights, *(bias for bias in net.biases if bias is not None)]


def wants_grad(*tensors: Tensor | None) -> bool:
    """Grad mode is on and one of the tensors requires grad."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def reference_named(backend: str | None, *tensors: Tensor | None) -> bool:
    """Whether derivatives of any order were asked for: inputs that require grad, on the reference.

    The reference then runs in plain sight of autograd, not behind the registered op.
    """
    return wants_grad(*tensors) and backends.named(backend) == "reference"


def through_reference(name: str, backend: str | None, *tensors: Tensor | None) -> bool:
    """:func:`reference_named` for an op that has no derivative of its own.

    Raises:
        RuntimeError: an input requires grad, and the reference was not asked for by name.
    """
    if reference_named(backend, *tensors):
        return True
    refuse_grad(name, *tensors)
    return False


def with_biases(net: Network) -> Network:
    """Zeros for the missing biases: torch tracks gradients only through lists without None."""
    pairs = zip(net.biases, net.weights)
    biases: list[Tensor | None] = [w.new_zeros(w.shape[0]) if b is None else b for b, w in pairs]
    return Network(net.weights, biases, net.layers, net.packed)  # which holds these zeros


class Pulled(NamedTuple):
    """What an op's backward is made from.

    Args:
        arguments: the schema's, the backend's name last.
        needed: whether the derivative in each argument is asked for; lists for lists.
        upstream: one cotangent per result, or None.
        slope: the op's second result, where it is the derivative of the first; else None.
    """

    arguments: list[Any]
    needed: list[Any]
    upstream: tuple[Tensor | None, ...]
    slope: Tensor | None

    def by_slope(self) -> Tensor | None:
        """The derivative in the first argument, where nothing but the slope is needed for it."""
        first, *others = self.upstream
        alone = not any(tree_flatten(self.needed[1:])[0]) and all(u is None for u in others)
        if self.slope is None or first is None or not alone:
            return None
        return first.unsqueeze(-1).to(self.slope.dtype) * self.slope


def differentiable_once(
    name: str, pull: Callable[[Pulled], list[Any]], *, returns_slope: bool = False
) -> None:
    """Register the derivative of op ``name``.

    Args:
        name: the op.
        pull: gives one derivative per leading argument, lists for lists; None where there is none.
        returns_slope: the op's second result [N, n] is the derivative of the first [N] in the
            first argument.
    """

    def setup_context(ctx, inputs, output) -> None:
        leaves, ctx.structure = tree_flatten(list(inputs))
        ctx.untracked = [isinstance(a, list) and any(t is None for t in a) for a in inputs]
        ctx.constants = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        ctx.places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        ctx.needed = [isinstance(leaf, Tensor) and leaf.requires_grad for leaf in leaves]
        slope = output[1:2] if returns_slope else ()
        ctx.save_for_backward(*(leaves[i] for i in ctx.places), *slope)
        ctx.set_materialize_grads(False)

    def backward(ctx, *upstream):
        if torch.is_grad_enabled():
            raise RuntimeError(f'{name} is differentiable once; use backend="reference"')
        leaves = list(ctx.constants)
        for place, tensor in zip(ctx.places, ctx.saved_tensors):
            leaves[place] = tensor
        arguments = tree_unflatten(leaves, ctx.structure)
        needed = tree_unflatten(ctx.needed, ctx.structure)
        slope = ctx.saved_tensors[-1] if returns_slope else None
        found = pull(Pulled(arguments, needed, upstream, slope))
        found += [None] * (len(arguments) - len(found))
        # a list with None among its tensors is one untracked argument to torch: no gradients
        return tuple(
            None if untracked else _like(a, f)
            for untracked, a, f in zip(ctx.untracked, arguments, found)
        )

    torch.library.register_autograd(
        f"vaefast::{name}", backward, setup_context=setup_context, lib=library
    )


def _like(argument: Any, gradient: Any) -> Any:
    """Lists for lists of tensors, also where there is no gradient; None for other lists."""
    tensors = isinstance(argument, list) and all(isinstance(t, Tensor) for t in argument)
    return [None] * len(argument) if tensors and gradient is None else gradient
