"""Packs: a network's weights as one backend's kernels stream them, made once for several calls."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vaefast import backends
from vaefast.ops._cpp import aligned, kernel, layers_of
from vaefast.types import MLP

__all__ = ["pack"]

FORWARD, BACKWARD = 1, 2  # in the order of csrc/kernels.h


def pack(mlp: MLP, *, backward: bool = True, backend: str | None = None) -> MLP:
    """The network with its pack beside it, for calls during which the weights stay as they are.

    Where it has a pack already, what that one lacks is added in place. As it came where the
    backend that will run takes no packs.

    Args:
        mlp: the network; values are read now, whatever is written into the weights later.
        backward: also pack what passes back through the network need (vjp, energies' gradients).
        backend: as it will be given to the ops.
    """
    first = mlp.weights[0]
    chosen = backends.wanted(backend, first)
    if chosen not in PACKERS:
        return mlp
    if not backends.supports("mlp_forward", chosen, device=first.device, dtype=first.dtype):
        return mlp
    if any((w.dtype, w.device) != (first.dtype, first.device) for w in mlp.weights[1:]):
        return mlp  # the op says what is wrong; nothing may read past a narrower matrix
    return mlp._replace(packed=PACKERS[chosen](mlp, backward))


def _pack_cpp(mlp: MLP, backward: bool) -> Tensor:
    """A header and the panels of csrc/mlp_pack.h, uint8."""
    weights, packed = [w.detach().resolve_neg() for w in mlp.weights], aligned(mlp.packed)
    no_biases: list[Tensor | None] = [None] * len(weights)
    dtype = weights[0].dtype
    if packed is None:
        (layers, *_), _alive = layers_of(weights, no_biases, mlp.activations, None)
        with torch.inference_mode(False):  # autograd may have to save it
            packed = torch.empty(kernel("mlp_pack_bytes", dtype)(layers), dtype=torch.uint8)
        kernel("mlp_pack_start", dtype)(layers, packed.data_ptr())
    network, _alive = layers_of(weights, no_biases, mlp.activations, packed)
    directions = FORWARD | BACKWARD if backward else FORWARD
    kernel("mlp_pack", dtype)(network, directions, torch.get_num_threads())
    return packed


def _pack_triton(mlp: MLP, backward: bool) -> Tensor:
    """The padded matrices of kernels/gpu/network.py, both directions, in the weights' dtype."""
    if mlp.packed is not None:
        return mlp.packed
    from vaefast.kernels import network

    weights = [w.detach() for w in mlp.weights]
    biases = [None if b is None else b.detach() for b in mlp.biases]
    with torch.inference_mode(False):
        return network.pack(weights, biases, network.net_of(weights, mlp.activations))


# by backend; a network that is no key's is packed by its op in each call
PACKERS: dict[str, Callable[[MLP, bool], Tensor]] = {
    "cpp": _pack_cpp,
    "triton": _pack_triton,
}
