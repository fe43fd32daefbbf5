"""Convolutional networks on a CPU: every op that a user's convolutional VAE spends its time in."""

from __future__ import annotations

from functools import partial

from vaefast.bench import hmc_defence
from vaefast.bench.ops import _pixel_chains as chains
from vaefast.bench.ops import _pixels as pixels
from vaefast.bench.ops._pixel_decoding import decoding
from vaefast.bench.ops._pixel_encoders import attack, grams
from vaefast.bench.place import Place
from vaefast.bench.runner import Case

__all__ = ["cases"]


def cases(place: Place) -> list[Case]:
    """Under the published decoder 26 MFLOP a leapfrog and chain."""
    found: list[Case] = []
    for decoder in (pixels.PUBLISHED, pixels.DCGAN):
        for N in decoder.leapfrogs:
            case = partial(chains.trajectory, place, decoder, N)
            found.append((f"trajectory {decoder.name} N={N}", case))
        for N in decoder.transitions:
            found.append((f"chain {decoder.name} N={N}", partial(chains.chain, place, decoder, N)))
    return [
        *found,
        ("whitened Gram", partial(grams, place)),
        ("latent attack", partial(attack, place)),
        ("decode_distance", partial(decoding, place)),
        ("defence", partial(hmc_defence.convolutional, hmc_defence.CONVOLUTIONAL)),
    ]
