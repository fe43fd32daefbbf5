"""Packs: a network's weights as one backend's kernels stream them, made once for several calls."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vaefast.ops._cpp import aligned, kernel, layers_of
from vaefast.runtime import backends, threads
from vaefast.types import Network

__all__ = ["pack"]

FORWARD, BACKWARD = 1, 2  # in the order of csrc/calls.h


def pack(net: Network, *, backward: bool = True, backend: str | None = None) -> Network:
    """The network with its pack beside it, for calls during which the weights stay as they are.

    Where it has a pack already, what that one lacks is added in place. As it came where the
    backend that will run takes no packs.

    Args:
        net: the network; values are read now, whatever is written into the weights later.
        backward: also pack what passes back through the network need (vjp, energies' gradients).
        backend: as it will be given to the ops.
    """
    first = net.weights[0]
    chosen = backends.wanted(backend, first)
    if chosen not in PACKERS:
        return net
    if not backends.supports("net_forward", chosen, device=first.device, dtype=first.dtype):
        return net
    if any((w.dtype, w.device) != (first.dtype, first.device) for w in net.weights[1:]):
        return net  # the op says what is wrong; nothing may read past a narrower matrix
    return net._replace(packed=PACKERS[chosen](net, backward))


def _pack_cpp(net: Network, backward: bool) -> Tensor:
    """A header and the panels of csrc/net/net_pack.h, uint8."""
    weights, packed = [w.detach().resolve_neg() for w in net.weights], aligned(net.packed)
    no_biases: list[Tensor | None] = [None] * len(weights)
    dtype = weights[0].dtype
    (layers, _, _, pixels), _alive = layers_of(weights, no_biases, net.layers, None)
    plain = layers, 0, 0, pixels
    if packed is None:
        with torch.inference_mode(False):  # autograd may have to save it
            bytes_ = kernel("net_pack_bytes", dtype)(plain)
            packed = torch.empty(bytes_, dtype=torch.uint8, device="cpu")
        kernel("net_pack_start", dtype)(plain, packed.data_ptr())
    network = layers, packed.data_ptr(), packed.nbytes, pixels
    directions = FORWARD | BACKWARD if backward else FORWARD
    kernel("net_pack", dtype)(network, directions, threads.count())
    return packed


def _pack_triton(net: Network, backward: bool) -> Tensor:
    """Padded matrices of kernels/gpu/common/network.py, both directions, in the weights' dtype."""
    if net.packed is not None:
        return net.packed
    from vaefast.kernels.common import network

    weights = [w.detach() for w in net.weights]
    biases = [None if b is None else b.detach() for b in net.biases]
    with torch.inference_mode(False):
        return network.pack(weights, biases, network.net_of(weights, net.layers))


# by backend; a network that is no key's is packed by its op in each call
PACKERS: dict[str, Callable[[Network, bool], Tensor]] = {
    "cpp": _pack_cpp,
    "triton": _pack_triton,
}
