"""What the cases of convolutional networks share: the networks, and a CPU's rate of products."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vaefast.bench.cases import Posterior
from vaefast.bench.ops import _nets as nets
from vaefast.bench.ops import _stacks as stacks
from vaefast.bench.pixels import dcgan_decoder, pixel_network, published_decoder
from vaefast.bench.place import PRODUCTS, Place
from vaefast.bench.runner import Provider
from vaefast.types import Network

__all__ = ["DCGAN", "PUBLISHED", "Decoder", "Given", "encoder", "rate_of_products"]

PRODUCT = 1024, 512, 512  # rows, inputs and outputs of the product that rates stand beside


class Decoder(NamedTuple):
    name: str
    make: Callable[[], Network]
    leapfrogs: dict[int, int]  # of a trajectory, by chains; ours packs in each call
    transitions: dict[int, int]  # of a chain with 10 leapfrogs
    at_least: dict[int, float]  # of the best peer, by chains
    percent_at_least: dict[int, float]  # of torch's rate in a product


PUBLISHED = Decoder(
    "published decoder 64-1x28x28",
    published_decoder,
    {1: 10, 10: 10, 64: 10, 500: 3},
    {1: 10, 10: 5, 64: 2, 500: 1},
    {1: 1.5, 10: 1.5, 64: 2.0, 500: 2.0},
    {64: 60.0, 500: 60.0},
)
DCGAN = Decoder(
    "DCGAN decoder 128-3x32x32",
    dcgan_decoder,
    {1: 10, 64: 10, 500: 3},
    {},
    {1: 1.3, 64: 1.7, 500: 1.7},
    {},
)


class Given(NamedTuple):
    """A decoder, images and latents; the peers' form of the decoder in both memory formats."""

    posterior: Posterior
    plain: stacks.Stack
    last: stacks.Stack

    @classmethod
    def of(cls, place: Place, decoder: Decoder, N: int) -> Given:
        net = decoder.make()
        z, x = place.normal(N, net.in_features), place.pixels(N, net.out_features)
        return cls(Posterior(z, x, net), stacks.stack(net), stacks.stack(net, channels_last=True))


def encoder(place: Place) -> Network:
    """Of Kuzina et al. 2022: 28x28 to 32-64-96-128 by strides of two, then to 64 latents."""
    seeds = iter(range(100))
    return pixel_network("published", 784, 64, lambda *s: place.normal(*s, seed=next(seeds)))


def rate_of_products(flop: int) -> tuple[dict[str, Provider], dict[str, float]]:
    """A provider that multiplies 1024x512x512 as often as the flops take, and its scale."""
    rows, inputs, outputs = PRODUCT
    one = 2 * rows * inputs * outputs
    repeat = max(1, round(flop / one))
    weight = torch.rand(outputs, inputs, device="cpu", dtype=torch.float32)
    run = partial(_multiplied, nets.product(rows, weight), repeat)
    return {PRODUCTS: run}, {PRODUCTS: flop / (repeat * one)}


def _multiplied(product: nets.Product, repeat: int) -> Tensor:
    given, matrix, out = product
    for _ in range(repeat):
        torch.mm(given, matrix, out=out)
    return out


def held_to(decoder: Decoder, N: int) -> dict[str, Any]:
    """What is asked of N chains, as options of a benchmark."""
    options: dict[str, Any] = {"ceiling": PRODUCTS, "at_least": decoder.at_least[N]}
    if N in decoder.percent_at_least:
        options["percent_at_least"] = decoder.percent_at_least[N]
    return options
