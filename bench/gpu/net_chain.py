"""``net_chain``: 1000 transitions of 20 leapfrogs, scaled up from some of them.

Every peer draws its own random numbers in what is timed; for the check it is given ours.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from vaefast import ops
from vaefast.bench.cases import Posterior
from vaefast.bench.gpu import chains
from vaefast.bench.gpu.place import PRECISIONS, TOLERANCE, Place
from vaefast.bench.ops import _hmc as hmc
from vaefast.bench.ops import _jax as jx
from vaefast.bench.ops import _nets as nets
from vaefast.bench.ops.net_chain import drawing, our_draws
from vaefast.bench.runner import Benchmark, Check, Provider
from vaefast.ops.net_chain import Chain

__all__ = ["cases"]

TRANSITIONS = 1000
OURS, THEIRS, CHECKED = 20, 10, 2  # transitions that are timed, and that are compared
SECONDS = {"bf16": 1.2, "tf32": 2.5}  # asked of 4096 posteriors
UNGRAPHED = ("eager", "gradient by hand", "vmap(grad)")
OUTLIERS = 0.05  # of the entries; energies of float32 and tf32 may decide a proposal differently


def cases(place: Place) -> list[tuple[str, Callable[[], Benchmark]]]:
    """4096 posteriors and 64; a transition of the first is 223 GFLOP."""
    return [
        (f"N={N} {precision}", partial(case, place, N, precision))
        for N in place.size((4096, 64), (4,))
        for precision in PRECISIONS
    ]


def case(place: Place, N: int, precision: str) -> Benchmark:
    shape, posterior = chains.decoder(place, N)
    z, x, net = posterior
    L, timed, theirs = chains.leapfrogs(place), place.size(OURS, 2), place.size(THEIRS, 2)
    options = {"likelihood": "bernoulli", "step": chains.STEP, "leapfrog": L}
    options |= {"precision": precision, "backend": place.backend("net_chain")}
    U, grad = nets.by_hand(z, x, net)
    constant = 0.5 * z.shape[1] * torch.log(torch.tensor(2 * torch.pi, dtype=torch.float64))
    energy = U.double() + constant.to(U.device)

    def ours(T: int) -> Chain:
        return ops.net_chain(z, energy, grad, x, net, steps=T, **options)

    def compared() -> Tensor:
        return ours(CHECKED).z

    peers, checks = in_torch(place, posterior, (z, U, grad), precision, compared)
    more = in_jax((z, U, grad), posterior, precision, L, theirs, compared)
    found = {"vaefast": partial(ours, timed), **_in_order(peers | more[0])}
    large = N == 4096
    return Benchmark(
        op="net_chain",
        case=(
            f"{shape} N={N} T={TRANSITIONS} L={L} {precision}, ours scaled up from {timed},"
            f" theirs from {theirs} transitions {place.device}"
        ),
        providers=found,
        checks=checks | more[1],
        scale={**dict.fromkeys(found, TRANSITIONS / theirs), "vaefast": TRANSITIONS / timed},
        bytes=nets.weight_bytes(net) + 4 * N * (4 * net.in_features + net.out_features),
        flop=2 * TRANSITIONS * L * nets.flop(net, N),
        precision=precision,
        limit=precision,
        tolerance=TOLERANCE[precision],
        outliers=OUTLIERS,
        at_least=(5.0 if precision in SECONDS else 1.0) if large else 1.5,
        at_least_of={} if large else dict.fromkeys(UNGRAPHED, 3.0),
        seconds_at_most=SECONDS.get(precision, float("nan")) if large else float("nan"),
    )


def _in_order(peers: dict[str, Provider]) -> dict[str, Provider]:
    """Those that are asked for and compile nothing first: a case's time may end while others do."""
    first = ("eager", "vmap(grad)", "CUDA graph, gradient by hand")
    first += ("torch.compile, CUDA graph", "JAX jit, gradient by hand")
    names = [*(n for n in first if n in peers), *(n for n in peers if n not in first)]
    return {name: peers[name] for name in names}


def in_torch(
    place: Place, case: Posterior, start: tuple, precision: str, ours: Callable[[], Tensor]
) -> tuple[dict[str, Provider], dict[str, Check]]:
    z, L = case.z, chains.leapfrogs(place)
    T = place.size(THEIRS, 2)

    def step(potential: Callable, wrap: Callable = lambda function: function) -> chains.Step:
        leaps = chains.torch_leaps(case, precision, potential, wrap)
        return chains.transition(leaps, case, L)

    graphed = partial(chains.replayed, place)
    runs = {
        "eager": chains.looped(step(nets.by_autograd), start),
        "gradient by hand": chains.looped(step(nets.by_hand), start),
        "vmap(grad)": chains.looped(step(chains.by_vmap), start),
        "CUDA graph, gradient by hand": graphed(step(nets.by_hand), start),
        "torch.compile, CUDA graph": graphed(step(nets.by_hand, place.compiled), start),
    }

    def timed(run: Callable) -> Tensor:
        return run(
            torch.randn(T, *z.shape, device=z.device), torch.rand(T, len(z), device=z.device)
        )

    def check(run: Callable) -> tuple[Tensor, Tensor]:
        return run(*our_draws(z, CHECKED)), ours()

    return (
        {name: partial(timed, run) for name, run in runs.items()},
        {name: partial(check, run) for name, run in runs.items()},
    )


def in_jax(
    start: tuple, case: Posterior, precision: str, L: int, T: int, ours: Callable[[], Tensor]
) -> tuple[dict[str, Provider], dict[str, Check]]:
    z, x, net = case
    found: dict[str, Provider] = {}
    checks: dict[str, Check] = {}
    if not jx.installed(gpu=z.is_cuda):
        return found, checks
    for name, (gradient, last, networks) in chains.jax_parts(net, precision).items():
        chain = hmc.jax_transitions(gradient, L, last)
        found |= jx.jitted(drawing(chain, (T, *z.shape)), *start, x, *networks, name=name)
        (given,) = jx.jitted(chain, *our_draws(z, CHECKED), *start, x, *networks).values()
        checks[name] = lambda given=given: (given(), ours())
    return found, checks
