"""Derivatives of registered ops: one by differentiating the reference, none by refusing."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from vaefast import backends
from vaefast.ops._register import library, refuse_grad
from vaefast.types import MLP

__all__ = [
    "differentiable_once",
    "reference_named",
    "tensors_of",
    "through_reference",
    "with_biases",
]


def tensors_of(mlp: MLP) -> list[Tensor]:
    return [*mlp.weights, *(bias for bias in mlp.biases if bias is not None)]


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


def with_biases(mlp: MLP) -> MLP:
    """Zeros for the missing biases: torch tracks gradients only through lists without None."""
    pairs = zip(mlp.biases, mlp.weights)
    return mlp._replace(biases=[w.new_zeros(w.shape[0]) if b is None else b for b, w in pairs])


def differentiable_once(name: str, function: Callable, *, returns_slope: bool = False) -> None:
    """Register the derivative of op ``name`` as that of ``function`` at the saved inputs.

    Args:
        name: the op.
        function: takes the schema's arguments but the last (``str backend``).
        returns_slope: the second result [N, n] is the derivative of the first [N] in the first
            argument; where nothing else is asked for, it serves as it is.
    """

    def setup_context(ctx, inputs, output) -> None:
        arguments = list(inputs[:-1])
        leaves, ctx.structure = tree_flatten(arguments)
        ctx.untracked = [isinstance(a, list) and any(t is None for t in a) for a in arguments]
        ctx.constants = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        ctx.places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        ctx.needed = [leaves[i].requires_grad for i in ctx.places]
        slope = output[1:2] if returns_slope else ()
        ctx.save_for_backward(*(leaves[i] for i in ctx.places), *slope)
        ctx.set_materialize_grads(False)

    def backward(ctx, *upstream):
        if torch.is_grad_enabled():
            raise RuntimeError(f'{name} is differentiable once; use backend="reference"')
        first_only = upstream[0] is not None and not any(ctx.needed[1:])
        if returns_slope and first_only and upstream[1] is None:
            slope = ctx.saved_tensors[-1]
            found = [upstream[0].unsqueeze(-1).to(slope.dtype) * slope]
        else:
            found = _recomputed(ctx, function, upstream)
        slots = dict(zip(ctx.places, found))
        like_inputs = tree_unflatten(
            [slots.get(i) for i in range(len(ctx.constants))], ctx.structure
        )
        # a list with None among its tensors is one untracked argument to torch: no gradients
        pairs = zip(ctx.untracked, like_inputs)
        return *(None if untracked else gradient for untracked, gradient in pairs), None

    torch.library.register_autograd(
        f"vaefast::{name}", backward, setup_context=setup_context, lib=library
    )


def _recomputed(ctx, function: Callable, upstream) -> list[Tensor | None]:
    """The gradient of each tensor argument, by running ``function`` again under autograd."""
    leaves = list(ctx.constants)
    for place, tensor, needed in zip(ctx.places, ctx.saved_tensors, ctx.needed):
        leaves[place] = tensor.detach().requires_grad_(needed)
    with torch.enable_grad():
        results = function(*tree_unflatten(leaves, ctx.structure))
    return _gradients(results, upstream, [leaves[i] for i in ctx.places])


def _gradients(results, upstream, inputs: list[Tensor]) -> list[Tensor | None]:
    """One gradient per input, None for those that need none."""
    results = (results,) if isinstance(results, Tensor) else results
    pairs = [(r, g) for r, g in zip(results, upstream) if g is not None and r.requires_grad]
    needed = [t for t in inputs if t.requires_grad]
    if not pairs or not needed:
        return [None] * len(inputs)
    outputs, weights = zip(*pairs)
    found = iter(torch.autograd.grad(outputs, needed, weights, allow_unused=True))
    return [next(found) if t.requires_grad else None for t in inputs]
