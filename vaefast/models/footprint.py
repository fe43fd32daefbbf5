"""How much memory one row of a model costs, measured rather than guessed."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vaefast import checks
from vaefast.models.finite_model import check_outputs
from vaefast.models.state import State
from vaefast.models.storages import plain_parts

__all__ = ["activation_bytes", "known_bytes"]

WORKING = 3  # what was saved, as much again in gradients, and as much in temporaries


class _Known(NamedTuple):
    """What was measured, of which state and weights."""

    state: State
    versions: list[tuple[int, int]]
    bytes: int


_known: weakref.WeakKeyDictionary[nn.Module, dict[Any, _Known]] = weakref.WeakKeyDictionary()


def known_bytes(
    forward: Callable[[Tensor], Any], x: Tensor, model: nn.Module, owner: nn.Module, key: tuple
) -> int:
    """:func:`activation_bytes`, kept while the weights and whatever else tells stay as they are.

    Args:
        owner: the part of the model that runs.
        key: what else the number depends on.
    """
    kept, key = _known.setdefault(owner, {}), (*key, x.shape[1:], x.dtype, x.device)
    found = kept.get(key)
    if found is not None and found.state.fits() and found.state.versions() == found.versions:
        return found.bytes
    state = State(owner)
    measured, versions = activation_bytes(forward, x, model), state.versions()
    if versions is not None and len(x):
        kept[key] = _Known(state, versions, measured)
    return measured


def activation_bytes(forward: Callable[[Tensor], Any], x: Tensor, model: nn.Module) -> int:
    """Working bytes of one row of ``forward`` and its backward pass, from one run on one row.

    Counts every storage that autograd saves, except those of the model's own weights.

    Args:
        forward: a differentiable function of [1, *event].
        x: [B, *event]; its first row is used. 0 where there is none.
        model: whose parameters and buffers do not count.

    Raises:
        ValueError: the model was made under ``torch.inference_mode()``, or its weights are NaN.
    """
    if not len(x):
        return 0
    checks.differentiable(model)
    weights = {at for t in [*model.parameters(), *model.buffers()] for at in _storages(t)}
    saved: dict[int, int] = {}

    def count(t: Tensor) -> Tensor:
        saved.update((at, size) for at, size in _storages(t).items() if at not in weights)
        return t.detach()

    with torch.inference_mode(False), torch.enable_grad():
        one = x[:1].detach().clone().requires_grad_()  # a clone, for x may be an inference tensor
        with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
            out = forward(one)
    check_outputs(model, *(out if isinstance(out, tuple) else (out,)))
    return WORKING * sum(saved.values())


def _storages(t: Tensor) -> dict[int, int]:
    """Bytes by address of the memory behind a tensor."""
    storages = [part.untyped_storage() for part in plain_parts(t)]
    return {storage.data_ptr(): storage.nbytes() for storage in storages}
