"""Derivatives of registered ops by closed forms and fast ops: first order, and no higher one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from vaefast.types import Network

__all__ = ["Pulled", "differentiable_once", "with_biases", "zero_biases"]


def with_biases(net: Network) -> Network:
    """Zeros for the missing biases: torch tracks gradients only through lists without None."""
    pairs = zip(net.biases, zero_biases(net))
    biases: list[Tensor | None] = [zeros if b is None else b for b, zeros in pairs]
    return Network(net.weights, biases, net.layers, net.packed)  # which holds these zeros


def zero_biases(net: Network) -> list[Tensor]:
    """A zero for every output of a linear layer, or for every channel."""
    pairs = zip(net.weights, net.parsed())
    return [weight.new_zeros(layer.out_shape[0]) for weight, layer in pairs]


class Pulled(NamedTuple):
    """What an op's backward is made from.

    Args:
        call: the op's arguments; its backend is the one that ran.
        needed: by name of a flat argument, whether its derivative is asked for; lists for lists.
        upstream: one cotangent per result, or None.
        second: the op's second result, where backward takes it; else None.
    """

    call: Any
    needed: dict[str, Any]
    upstream: tuple[Tensor | None, ...]
    second: Tensor | None

    def needs(self, *names: str) -> bool:
        """Whether a derivative in any of these arguments is asked for."""
        return any(any(tree_flatten(self.needed[name])[0]) for name in names)

    def by_slope(self) -> Tensor | None:
        """The derivative in the first argument, where nothing but the second result, the first
        one's slope [N, n] in it, is needed for it.
        """
        first, *others = self.upstream
        rest = list(self.needed)[1:]
        if self.second is None or first is None or self.needs(*rest):
            return None
        if any(u is not None for u in others):
            return None
        return first.unsqueeze(-1).to(self.second.dtype) * self.second


def differentiable_once(
    name: str,
    library: torch.library.Library,
    names: tuple[str, ...],
    rebuilt: Callable[[tuple], Any],
    pull: Callable[[Pulled], dict[str, Any]],
    keeps_second: bool,
) -> None:
    """Register the derivative of op ``name``, whose flat arguments have these ``names``.

    Args:
        rebuilt: from flat arguments to the op's Call.
        pull: gives derivatives by name of the flat argument, lists for lists.
        keeps_second: backward takes the op's second result.
    """

    def setup_context(ctx, inputs, output) -> None:
        leaves, ctx.structure = tree_flatten(list(inputs))
        ctx.untracked = [isinstance(a, list) and any(t is None for t in a) for a in inputs]
        ctx.constants = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        ctx.places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        ctx.needed = [isinstance(leaf, Tensor) and leaf.requires_grad for leaf in leaves]
        second = output[1:2] if keeps_second else ()
        ctx.save_for_backward(*(leaves[i] for i in ctx.places), *second)
        ctx.set_materialize_grads(False)

    def backward(ctx, *upstream):
        if torch.is_grad_enabled():
            raise RuntimeError(f'{name} is differentiable once; use backend="reference"')
        leaves = list(ctx.constants)
        for place, tensor in zip(ctx.places, ctx.saved_tensors):
            leaves[place] = tensor
        arguments = tree_unflatten(leaves, ctx.structure)
        needed = dict(zip(names, tree_unflatten(ctx.needed, ctx.structure)))
        second = ctx.saved_tensors[-1] if keeps_second else None
        found = pull(Pulled(rebuilt(tuple(arguments)), needed, upstream, second))
        # a list with None among its tensors is one untracked argument to torch: no gradients
        return tuple(
            None if untracked else _like(argument, found.get(argument_name))
            for untracked, argument, argument_name in zip(ctx.untracked, arguments, names)
        )

    torch.library.register_autograd(
        f"vaefast::{name}", backward, setup_context=setup_context, lib=library
    )


def _like(argument: Any, gradient: Any) -> Any:
    """Lists for lists of tensors, also where there is no gradient; None for other lists."""
    tensors = isinstance(argument, list) and all(isinstance(t, Tensor) for t in argument)
    return [None] * len(argument) if tensors and gradient is None else gradient
