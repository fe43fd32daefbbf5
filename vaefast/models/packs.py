"""How long packed weights live: one public call, or a ``with vaefast.frozen(vae)`` block.

``_version`` misses writes through ``.data`` and numpy and those of fused optimizers, so nothing can
tell whether a pack still fits, short of reading all weights again.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch
from torch import Tensor

from vaefast.models.storages import plain_parts
from vaefast.models.vae import VAE
from vaefast.ops._pack import pack
from vaefast.runtime import backends
from vaefast.types import Network

SMALL = 1 << 16  # weights that an op packs in some microseconds
FEW_USES = 4  # from here on a pack pays

__all__ = ["Packs", "frozen", "is_frozen", "packs_of"]


class Packs:
    """One VAE's packs, each made when its network is first used, or has been used a few times.

    A small network's op packs it in less time than a pack of its own takes to be asked for.

    Args:
        kept: from call to call; then all are packed at once.
    """

    def __init__(self, *, kept: bool = False) -> None:
        self._kept = kept
        self._made: dict[tuple, tuple[Tensor | None, bool]] = {}  # and whether both directions
        self._uses: Counter[tuple] = Counter()

    def packed(
        self,
        name: str,
        net: Network,
        *,
        backward: bool = True,
        backend: str | None = None,
        uses: int = 1,
    ) -> Network:
        """The network with its pack; a small one that few ops have taken so far as it is.

        Args:
            name: of the weights; networks that differ in activations only may share it.
            backward: whether rows also pass back through it.
            backend: as it will be given to the ops.
            uses: how many ops will take what is returned.
        """
        weight = net.weights[0]
        key = name, weight.dtype, weight.device, backends.wanted(backend, weight)
        made, both = self._made.get(key, (None, False))
        if key not in self._made and self._can_wait(key, net, uses):
            return net
        kept = Network(net.weights, net.biases, net.layers, made)
        if key in self._made and (both or not backward):
            return kept
        ready = pack(kept, backward=backward, backend=backend)
        self._made[key] = ready.packed, backward
        return ready

    def _can_wait(self, key: tuple, net: Network, uses: int) -> bool:
        if self._kept or sum([w.numel() for w in net.weights]) > SMALL:
            return False
        self._uses[key] += uses
        return self._uses[key] < FEW_USES


# inside blocks; a thread that keeps packs keeps them to itself
_kept: ContextVar[tuple[tuple[VAE, Packs], ...]] = ContextVar("vaefast_packs", default=())


def packs_of(vae: VAE) -> Packs:
    """The packs that are kept for the VAE now, or new ones."""
    return next((packs for owner, packs in _kept.get() if owner is vae), None) or Packs()


def is_frozen(vae: VAE) -> bool:
    """Whether this thread is inside a ``with frozen(vae)`` block."""
    return any(owner is vae for owner, _ in _kept.get())


@contextmanager
def _keeping(vae: VAE) -> Iterator[None]:
    """One set of packs for everything inside; whoever began keeping them ends it."""
    if is_frozen(vae):
        yield
        return
    token = _kept.set((*_kept.get(), (vae, Packs(kept=True))))
    try:
        yield
    finally:
        _kept.reset(token)


@contextmanager
def frozen(vae: VAE) -> Iterator[None]:
    """Promise that the VAE, weights and code, stays as it is inside the ``with`` block.

    Every public function packs the weights of the networks it uses, and forgets the packs when it
    returns: 0.5 ms for 32-512-512-784; and it compares each network with the module on two rows.
    Inside the block the packs are kept from call to call and the comparisons are left out, which
    pays for many short calls. Results are the same, to the bit. A change of parameters or
    buffers inside the block is found at its end, by a checksum: entering and leaving read all of
    them once. Equivalent to, but for the time::

        contextlib.nullcontext()

    It holds for the thread that enters; others pack for themselves. Parameters and buffers are
    checked, plain tensors and settings that a module holds beside them are not.

    Args:
        vae: the model.

    Raises:
        TypeError: ``vae`` is no VAE.
        RuntimeError: at the end of the block, a parameter or buffer is not what it was at its
            beginning; functions called inside may have used either, or a mixture.
    """
    if not isinstance(vae, VAE):
        raise TypeError(
            f"vae must be a vaefast.VAE, got {type(vae).__name__}; wrap it with vaefast.as_vae"
        )
    before = _sums(vae)
    with _keeping(vae):
        yield
    after = _sums(vae)
    changed = sorted(name for name in before | after if before.get(name) != after.get(name))
    if changed:
        raise RuntimeError(
            f"weights changed inside vaefast.frozen: {', '.join(changed[:3])}"
            f"{', ...' if len(changed) > 3 else ''}; results from inside may be of either, "
            "change weights outside of the block"
        )


class _Sum(NamedTuple):
    """What tells a tensor from its later self."""

    dtype: torch.dtype
    shape: torch.Size
    checksum: int


def _sums(vae: VAE) -> dict[str, _Sum]:
    """By the names of parameters and buffers."""
    tensors = [*vae.named_parameters(), *vae.named_buffers()]
    return {name: _Sum(t.dtype, t.shape, _checksum(t)) for name, t in tensors}


def _checksum(t: Tensor) -> int:
    """Of all memory behind it; 0 for a wrapper that does not tell what it holds."""
    total = 0
    for part in plain_parts(t.detach()):
        data = part.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        total = zlib.crc32(data.numpy().data, total)
    return total
