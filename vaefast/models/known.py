"""The networks that a VAE's last call found, for the next one: nothing they depend on has changed.

Recognising encoder and decoder from their traces (:mod:`vaefast.models.traces`) looks at each of
them, and reads the weights anew. Where a VAE is made of torch's own layers and ours, and its
networks are its parameters themselves, with nothing folded into them, one look at the state of the
whole VAE and at the weights' versions says as much.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from itertools import chain
from typing import Any, TypeVar

from torch import Tensor

from vaefast.models import lowering
from vaefast.models.packs import is_frozen
from vaefast.models.state import State, watched
from vaefast.models.vae import VAE
from vaefast.types import Network

__all__ = ["Known", "known"]

T = TypeVar("T")

_last: weakref.WeakKeyDictionary[VAE, Known] = weakref.WeakKeyDictionary()


class Known:
    """One VAE's networks for x of one kind.

    Attributes:
        encoder: its networks.

    Args:
        certain: whether no promise of the caller's was needed to know them.
    """

    def __init__(self, vae: VAE, x: Tensor, encoder: lowering.Encoder, certain: bool) -> None:
        self.encoder = encoder
        self._decoder: Network | None = None
        self._made: dict[Callable[[VAE], Any], Any] = {}
        self._kind = x.shape[1:], x.dtype, x.device
        self._places = {t.data_ptr() for t in chain(vae.parameters(), vae.buffers())}
        nets = encoder.mean, encoder.logvar, encoder.std
        self._state = State(vae) if certain and all(map(self._is_live, nets)) else None
        self._versions = None if self._state is None else self._state.versions()

    def stands(self, x: Tensor) -> bool:
        """Whether these are the VAE's networks for x still, without a look at a module's results.

        Networks that hold a copy of a weight are not kept: it may be another now.
        """
        return (
            self._state is not None
            and self._kind == (x.shape[1:], x.dtype, x.device)
            and self._state.fits()
            and self._versions is not None
            and self._versions == self._state.versions()
            and not watched()
        )

    def decoder(self, vae: VAE, z: Tensor) -> Network | None:
        """z ↦ natural parameters for z like [n, d]; None where it has to be lowered."""
        if self._decoder is None and self._state is not None:
            net = lowering.known_decoder(vae, z)
            self._decoder = net if self._is_live(net) else None
        return self._decoder

    def once(self, make: Callable[[VAE], T], vae: VAE) -> T:
        """What the function makes of the VAE's settings and the places of its tensors, kept."""
        if self._state is None:
            return make(vae)
        if make not in self._made:
            self._made[make] = make(vae)
        return self._made[make]

    def _is_live(self, net: Network | None) -> bool:
        """Whether it holds the VAE's own tensors, whose values are always those of now."""
        tensors = [] if net is None else [*net.weights, *net.biases]
        return all(t is None or t.data_ptr() in self._places for t in tensors)


def known(vae: VAE, x: Tensor) -> Known | None:
    """What is known of the VAE for x [B, *event], or None: then its encoder has to be run."""
    last = _last.get(vae)
    if last is not None and last.stands(x):
        return last
    if vae.latent_shape is None or vae.event_shape != tuple(x.shape[1:]) or vae._doubts:
        return None
    encoder = lowering.known_encoder(vae, x)
    certain = encoder is not None
    if encoder is None and is_frozen(vae):
        encoder = lowering.known_encoder(vae, x, frozen=True)
    if encoder is None or encoder.mean is None or encoder.mean.out_features != vae.latent_dim:
        return None
    last = _last[vae] = Known(vae, x, encoder, certain)
    return last
