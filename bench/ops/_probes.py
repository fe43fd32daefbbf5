"""What ``net_jvp`` and ``net_vjp`` have in common: an encoder, its inputs, and 8 probes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from torch import Tensor

from vaefast.bench.ops import _nets as nets
from vaefast.bench.place import Place, net_at
from vaefast.bench.runner import Benchmark, Case, Provider
from vaefast.types import Network

__all__ = ["PROBES", "Probes", "benchmark", "cases_of", "probes"]

PROBES = 8


class Probes(NamedTuple):
    shape: nets.Shape
    whose: str  # "shared" or "own"
    precision: str
    x: Tensor  # [B, D]
    v: Tensor  # [K, ...] or [B, K, ...]
    net: Network
    peer: Network  # the same at the peers' precision


def cases_of(build: Callable[[Place, nets.Shape, str, str], Benchmark], place: Place) -> list[Case]:
    return [
        (f"{shape.reversed()} {whose} probes {precision}",
         partial(build, place, shape, whose, precision))
        for shape in nets.shapes(place)
        for whose in ("shared", "own")
        for precision in place.precisions
    ]  # fmt: skip


def probes(place: Place, shape: nets.Shape, whose: str, precision: str, of_inputs: bool) -> Probes:
    net = nets.encoder(shape, place.device)
    B = place.table(256, 16384, 5)
    width = net.in_features if of_inputs else net.out_features
    v = place.normal(*((PROBES,) if whose == "shared" else (B, PROBES)), width, seed=1)
    x = place.pixels(B, net.in_features)
    return Probes(shape, whose, precision, x, v, net, net_at(net, precision))


def benchmark(
    op: str, place: Place, given: Probes, found: dict[str, Provider], flop: int
) -> Benchmark:
    B = len(given.x)
    name = f"{given.shape.reversed()} B={B} K={PROBES} {given.whose} probes"
    return Benchmark(
        op=op,
        case=f"{name} {place.named(given.precision)}",
        providers=found,
        bytes=nets.weight_bytes(given.net) + given.x.nbytes + given.v.nbytes + 8 * B * PROBES,
        flop=flop,
        at_least=1.2 if place.on_cpu and given.shape == nets.TABLE[0] else 1.0,
        **place.held_to(given.precision),
    )
