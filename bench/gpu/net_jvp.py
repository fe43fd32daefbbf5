"""``net_jvp``: norms of 8 products with an encoder's Jacobian at 16384 images."""

from __future__ import annotations

from collections.abc import Callable

from vaefast import ops
from vaefast.bench.gpu._probes import PROBES, benchmark, cases_of, probes
from vaefast.bench.gpu.place import Place
from vaefast.bench.ops import _jacobian as jac
from vaefast.bench.ops import _jax as jx
from vaefast.bench.ops import _nets as nets
from vaefast.bench.runner import Benchmark

__all__ = ["cases"]


def cases(place: Place) -> list[tuple[str, Callable[[], Benchmark]]]:
    return cases_of(case, place)


def case(place: Place, whose: str, precision: str) -> Benchmark:
    given = probes(place, whose, precision, of_inputs=True)
    x, v, net, peer = given
    options = {"precision": precision, "backend": place.backend("net_jvp")}
    by_hand, func = place.compiled(jac.jvp_by_hand), place.compiled(jac.jvp_by_func)
    first = 2 * v[..., 0].numel() * net.weights[0].numel()
    beyond = 2 * len(x) * PROBES * sum(weight.numel() for weight in net.weights[1:])
    found = {
        "vaefast": lambda: ops.net_jvp(x, v, net, **options)[::-1],
        "torch.compile by hand": lambda: by_hand(x, v, peer),
        "torch.compile of torch.func": lambda: func(x, v, peer),
        **jx.jitted(jac.jvp_by_jax, x, v, *jx.network(peer)),
        "by hand": lambda: jac.jvp_by_hand(x, v, peer),
        "torch.func": lambda: jac.jvp_by_func(x, v, peer),
    }
    flop = nets.flop(net, len(x)) + first + beyond
    return benchmark("net_jvp", place, whose, precision, given, found, flop)
