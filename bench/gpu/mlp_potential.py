"""``mlp_potential``: energies and gradients of 65536 chains."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from vaefast import ops
from vaefast.bench.gpu import chains
from vaefast.bench.gpu.place import PRECISIONS, TOLERANCE, Place, mlp_at
from vaefast.bench.ops import _jax as jx
from vaefast.bench.ops import _nets as nets
from vaefast.bench.runner import Benchmark

__all__ = ["cases"]


def cases(place: Place) -> list[tuple[str, Callable[[], Benchmark]]]:
    """2.7 MFLOP a chain."""
    return [(precision, partial(case, place, precision)) for precision in PRECISIONS]


def case(place: Place, precision: str) -> Benchmark:
    N = place.size(65536, 5)
    shape, (z, x, mlp) = chains.decoder(place, N)
    options = {"likelihood": "bernoulli", "precision": precision}
    options["backend"] = place.backend("mlp_potential")
    peer = mlp_at(mlp, precision)
    compiled = place.compiled(nets.by_hand)
    return Benchmark(
        op="mlp_potential",
        case=f"{shape} N={N} {precision} {place.device}",
        providers={
            "vaefast": lambda: ops.mlp_potential(z, x, mlp, **options)[::-1],
            "torch.compile": lambda: compiled(z, x, peer)[::-1],
            "gradient by hand": lambda: nets.by_hand(z, x, peer)[::-1],
            "eager": lambda: nets.by_autograd(z, x, peer)[::-1],
            **jx.jitted(jx.gradient_and_energy, z, x, *jx.network(peer)),
        },
        bytes=nets.weight_bytes(mlp) + 4 * N * (2 * mlp.in_features + mlp.out_features),
        flop=2 * nets.flop(mlp, N),
        precision=precision,
        limit=precision,
        tolerance=TOLERANCE[precision],
    )
