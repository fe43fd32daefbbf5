"""``decode_distance`` through the published convolutional decoder, on a CPU."""

from __future__ import annotations

from vaefast.bench.ops import _nets as nets
from vaefast.bench.ops import _pixels as pixels
from vaefast.bench.ops import _stacks as stacks
from vaefast.bench.ops import decode_distance
from vaefast.bench.place import PRODUCTS, Place
from vaefast.bench.runner import Benchmark, Check, Provider

__all__ = ["decoding"]

B, S = 64, 1000
THEIRS, CHECKED = 4, 2  # inputs that the peers are timed on, and compared


class Job(decode_distance.Job):
    """Its draws, with the decoder's peers by convolutions."""

    def __init__(self, place: Place, channels_last: bool) -> None:
        self.place, self.precision = place, "ieee"
        self.B, self.S, self.theirs, self.checked = B, S, THEIRS, CHECKED
        self.net = pixels.PUBLISHED.make().with_epilogue("sigmoid")
        self.peer = stacks.stack(self.net, channels_last=channels_last)
        self.chunks = (1,)
        self.draw(self.peer)


def decoding(place: Place) -> Benchmark:
    """Each provider returns the hits of its inputs."""
    plain, last = Job(place, channels_last=False), Job(place, channels_last=True)
    flop = B * nets.flop(plain.net, S)
    product, scale = pixels.rate_of_products(flop // 16)
    found: dict[str, Provider] = {"vaefast": lambda: plain.ours(B).double(), **product}
    checks: dict[str, Check] = {}
    for ending, peers in (
        ("", decode_distance.in_torch(plain)),
        (", channels last", decode_distance.in_torch(last)),
        ("", decode_distance.in_jax(plain)),
    ):
        for into, given in zip((found, checks), peers):
            into.update({f"{name}{ending}": value for name, value in given.items()})
    return Benchmark(
        op="decode_distance",
        case=f"{pixels.PUBLISHED.name} B={B} S={S}, theirs scaled up from {THEIRS} {place.named()}",
        providers=found,
        checks=checks,
        scale={
            **dict.fromkeys(checks, B / THEIRS),
            **{name: 16 * value for name, value in scale.items()},
        },
        tolerance=0.01,
        bytes=B * 4 * (2 * plain.net.in_features + plain.net.out_features),
        flop=flop,
        ceiling=PRODUCTS,
        at_least=1.7,
    )
