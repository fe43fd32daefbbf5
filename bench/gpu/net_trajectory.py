"""``net_trajectory``: 20 leapfrogs of 4096 chains, and of 64."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from vaefast import ops
from vaefast.bench.gpu import chains
from vaefast.bench.gpu.place import PRECISIONS, TOLERANCE, Place
from vaefast.bench.ops import _hmc as hmc
from vaefast.bench.ops import _jax as jx
from vaefast.bench.ops import _nets as nets
from vaefast.bench.runner import Benchmark, Provider

__all__ = ["cases"]


def cases(place: Place) -> list[tuple[str, Callable[[], Benchmark]]]:
    """54 MFLOP a chain."""
    return [
        (f"N={N} {precision}", partial(case, place, N, precision))
        for N in place.size((4096, 64), (3,))
        for precision in PRECISIONS
    ]


def case(place: Place, N: int, precision: str) -> Benchmark:
    shape, posterior = chains.decoder(place, N)
    z, x, net = posterior
    L, p = chains.leapfrogs(place), place.normal(*z.shape, seed=1)
    options = {"likelihood": "bernoulli", "step": chains.STEP, "leapfrog": L}
    options |= {"precision": precision, "backend": place.backend("net_trajectory")}
    _, grad = nets.by_hand(z, x, net)
    by_hand = chains.torch_leaps(posterior, precision, nets.by_hand, lambda function: function)
    compiled = chains.torch_leaps(posterior, precision, nets.by_hand, place.compiled)
    found: dict[str, Provider] = {
        "vaefast": lambda: ops.net_trajectory(z, p, grad, x, net, **options),
        "torch.compile, CUDA graph": place.captured(
            lambda: chains.trajectory(compiled, z, p, grad, L)
        ),
        "gradient by hand": lambda: chains.trajectory(by_hand, z, p, grad, L),
    }
    parts = chains.jax_parts(net, precision) if jx.installed(gpu=z.is_cuda) else {}
    for name, (gradient, last, networks) in parts.items():
        run = hmc.jax_trajectory(gradient, L, last)
        found |= jx.jitted(run, z, p, grad, x, *networks, name=name)
    return Benchmark(
        op="net_trajectory",
        case=f"{shape} N={N} L={L} {precision} {place.device}",
        providers=found,
        bytes=nets.weight_bytes(net) + 4 * N * (6 * net.in_features + net.out_features),
        flop=2 * L * nets.flop(net, N),
        precision=precision,
        limit=precision,
        tolerance=TOLERANCE[precision],
    )
