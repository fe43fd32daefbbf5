"""What ``net_jvp`` and ``net_vjp`` have in common: an encoder, its inputs, and 8 probes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from torch import Tensor

from vaefast.bench.gpu import chains
from vaefast.bench.gpu.place import PRECISIONS, TOLERANCE, Place, net_at
from vaefast.bench.ops import _nets as nets
from vaefast.bench.runner import Benchmark, Provider
from vaefast.types import Network

__all__ = ["PROBES", "Probes", "benchmark", "cases_of"]

PROBES = 8


class Probes(NamedTuple):
    x: Tensor  # [B, D]
    v: Tensor  # [K, ...] or [B, K, ...]
    net: Network
    peer: Network  # the same at the peers' precision


def cases_of(
    build: Callable[[Place, str, str], Benchmark], place: Place
) -> list[tuple[str, Callable[[], Benchmark]]]:
    return [
        (f"{whose} probes {precision}", partial(build, place, whose, precision))
        for whose in ("shared", "own")
        for precision in PRECISIONS
    ]


def probes(place: Place, whose: str, precision: str, of_inputs: bool) -> Probes:
    net = nets.encoder(place.size(*chains.DECODER), place.device)
    B = place.size(16384, 5)
    width = net.in_features if of_inputs else net.out_features
    shape = (PROBES, width) if whose == "shared" else (B, PROBES, width)
    v = place.normal(*shape, seed=1)
    return Probes(place.pixels(B, net.in_features), v, net, net_at(net, precision))


def benchmark(
    op: str, place: Place, whose: str, precision: str, given: Probes, found: dict[str, Provider],
    flop: int,
) -> Benchmark:  # fmt: skip
    shape = place.size(*chains.DECODER).reversed()
    B = len(given.x)
    return Benchmark(
        op=op,
        case=f"{shape} B={B} K={PROBES} {whose} probes {precision} {place.device}",
        providers=found,
        bytes=nets.weight_bytes(given.net) + given.x.nbytes + given.v.nbytes + 8 * B * PROBES,
        flop=flop,
        precision=precision,
        limit=precision,
        tolerance=TOLERANCE[precision],
    )
