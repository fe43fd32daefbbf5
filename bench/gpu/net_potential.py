"""``net_potential``: energies and gradients of 65536 chains."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from vaefast import ops
from vaefast.bench.gpu import chains
from vaefast.bench.gpu.place import PRECISIONS, TOLERANCE, Place, net_at
from vaefast.bench.ops import _jax as jx
from vaefast.bench.ops import _nets as nets
from vaefast.bench.runner import Benchmark

__all__ = ["cases"]


def cases(place: Place) -> list[tuple[str, Callable[[], Benchmark]]]:
    """2.7 MFLOP a chain."""
    return [(precision, partial(case, place, precision)) for precision in PRECISIONS]


def case(place: Place, precision: str) -> Benchmark:
    N = place.size(65536, 5)
    shape, (z, x, net) = chains.decoder(place, N)
    options = {"likelihood": "bernoulli", "precision": precision}
    options["backend"] = place.backend("net_potential")
    peer = net_at(net, precision)
    compiled = place.compiled(nets.by_hand)
    return Benchmark(
        op="net_potential",
        case=f"{shape} N={N} {precision} {place.device}",
        providers={
            "vaefast": lambda: ops.net_potential(z, x, net, **options)[::-1],
            "torch.compile": lambda: compiled(z, x, peer)[::-1],
            "gradient by hand": lambda: nets.by_hand(z, x, peer)[::-1],
            "eager": lambda: nets.by_autograd(z, x, peer)[::-1],
            **jx.jitted(jx.gradient_and_energy, z, x, *jx.network(peer)),
        },
        bytes=nets.weight_bytes(net) + 4 * N * (2 * net.in_features + net.out_features),
        flop=2 * nets.flop(net, N),
        precision=precision,
        limit=precision,
        tolerance=TOLERANCE[precision],
    )
