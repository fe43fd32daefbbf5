"""``net_chain`` against the same transitions in torch, compiled, in CUDA graphs, JAX and blackjax.

Every peer draws its own random numbers in what is timed; for the check all but blackjax are given
ours. A CPU's case is a whole call, a GPU's is scaled up from some transitions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from vaefast import ops, philox
from vaefast.bench.cases import Posterior
from vaefast.bench.ops import _blackjax as blackjax
from vaefast.bench.ops import _chains as chains
from vaefast.bench.ops import _hmc as hmc
from vaefast.bench.ops import _jax as jx
from vaefast.bench.ops import _nets as nets
from vaefast.bench.ops._stacks import Stack
from vaefast.bench.place import Place
from vaefast.bench.runner import Benchmark, Case, Check, Provider
from vaefast.ops.net_chain import Chain
from vaefast.philox import Use
from vaefast.types import Network

__all__ = ["cases"]

FEW = {1: 20, 16: 20, 64: 5, 1024: 2}  # a CPU's transitions by N; each call packs anew
TRANSITIONS = 1000  # a GPU's
OURS, THEIRS, CHECKED = 20, 10, 2  # of which so many are timed, and compared
SECONDS = {"bf16": 1.2, "tf32": 2.5}  # asked of 4096 posteriors
UNGRAPHED = ("autograd", "gradient by hand", "vmap(grad)")
OUTLIERS = {True: 0.01, False: 0.05}  # on a CPU or not; a proposal may be decided differently

Peers = tuple[dict[str, Provider], dict[str, Check]]


class Job(NamedTuple):
    """Chains, and how much of them is timed."""

    place: Place
    posterior: Posterior
    precision: str
    L: int
    ours: int  # transitions
    theirs: int
    checked: int
    start: tuple[Tensor, Tensor, Tensor]  # z, U without its constant, grad

    def run(self, T: int) -> Chain:
        z, U, grad = self.start
        options = {"likelihood": "bernoulli", "step": chains.STEP, "leapfrog": self.L}
        options |= {"precision": self.precision, "backend": self.place.backend("net_chain")}
        constant = 0.5 * z.shape[1] * math.log(2 * math.pi)
        energy = U.double() + constant
        return ops.net_chain(z, energy, grad, *self.posterior[1:], steps=T, **options)

    def compared(self) -> Tensor:
        return self.run(self.checked).z


def cases(place: Place) -> list[Case]:
    """Under the decoder 32-512-512-784 a leapfrog of a chain is 2.7 MFLOP."""
    return [
        (f"{shape} N={N} {precision}", partial(case, place, shape, N, precision))
        for shape in nets.shapes(place)
        for N in place.table(hmc.ROWS, (4096, 64), (4,))
        for precision in place.precisions
    ]


def case(place: Place, shape: nets.Shape, N: int, precision: str) -> Benchmark:
    """Each provider returns the last position."""
    job = _job(place, shape, N, precision)
    L, net = job.L, job.posterior.net
    peers, checks = loops(job) if place.on_cpu else graphs(job)
    found = {"vaefast": partial(job.run, job.ours), **peers}
    T = job.ours if place.on_cpu else TRANSITIONS
    part = f", ours scaled up from {job.ours}, theirs from {job.theirs} transitions"
    scale = {**dict.fromkeys(found, T / job.theirs), "vaefast": T / job.ours}
    name = f"{shape} N={N} T={T} L={L}"
    return Benchmark(
        op="net_chain",
        case=f"{name} {place.named(precision)}"
        if place.on_cpu
        else f"{name} {precision}{part} {place.device}",
        providers=found,
        checks=checks,
        scale={} if place.on_cpu else scale,
        outliers=OUTLIERS[place.on_cpu],
        bytes=nets.weight_bytes(net) + 4 * N * (4 * net.in_features + net.out_features),
        flop=2 * T * L * nets.flop(net, N),
        **place.held_to(precision),
        **(hmc.asked(place, shape, N) if place.on_cpu else asked(N, precision)),
    )


def asked(N: int, precision: str) -> dict:
    """Of a GPU."""
    if N != 4096:
        return {"at_least": 1.5, "at_least_of": dict.fromkeys(UNGRAPHED, 3.0)}
    seconds = {"seconds_at_most": SECONDS[precision]} if precision in SECONDS else {}
    return {"at_least": 5.0 if seconds else 1.0, **seconds}


def _job(place: Place, shape: nets.Shape, N: int, precision: str) -> Job:
    posterior = nets.decoder(shape, N, place.device)
    U, grad = nets.by_hand(*posterior)
    few = FEW.get(N, CHECKED)
    timed = (place.table(few, OURS, 2), place.table(few, THEIRS, 2), place.table(few, CHECKED, 2))
    L = chains.leapfrogs(place)
    return Job(place, posterior, precision, L, *timed, (posterior.z, U, grad))


def our_draws(z: Tensor, T: int) -> tuple[Tensor, Tensor]:
    """The momenta [T, N, d] and uniforms [T, N] of net_chain with seed 0."""
    index = torch.arange(len(z), device=z.device)
    key = {"seed": 0, "index": index}
    momenta = [
        philox.normal(z.shape[1], step=t, use=Use.MOMENTUM, dtype=z.dtype, **key) for t in range(T)
    ]
    uniforms = [philox.uniform(1, step=t, use=Use.ACCEPT, **key)[:, 0] for t in range(T)]
    return torch.stack(momenta), torch.stack(uniforms).to(z.dtype)


def loops(job: Job) -> Peers:
    """On a CPU: loops over transitions, then JAX and blackjax."""
    net, N = job.posterior.net, len(job.posterior.z)

    def products() -> list[nets.Product]:
        return nets.forward_products(net, N) + nets.backward_products(net, N)

    found: dict[str, Provider] = nets.ceiling(job.place, products, repeat=job.ours * job.L)
    checks: dict[str, Check] = {}
    steps = {name: chains.looped(step, job.start) for name, step in transitions(job).items()}
    for peers, theirs in (
        drawing_peers(job, steps),
        in_jax(job),
        blackjax.peers(job.start, *job.posterior[1:], job.ours),
    ):
        found |= peers
        checks |= theirs
    return found, checks


def transitions(job: Job) -> dict[str, chains.Step]:
    _, x, net = job.posterior
    potential, whole = job.place.compiled(nets.by_hand), job.place.compiled(in_one)

    def around(potential: Callable) -> chains.Step:
        def end(z, p, grad, x, net):
            return hmc.trajectory(z, p, grad, x, net, potential)

        return lambda *state: hmc.transition(*state, x, net, end)

    return {
        "autograd": around(nets.by_autograd),
        "gradient by hand": around(nets.by_hand),
        "torch.compile of the gradient": around(potential),
        "torch.compile of the transition": lambda *state: whole(*state, x, net),
    }


def in_one(z: Tensor, U: Tensor, grad: Tensor, p: Tensor, u: Tensor, x: Tensor, net: Network):
    """A transition as torch.compile gets it."""

    def end(z, p, grad, x, net):
        return hmc.trajectory(z, p, grad, x, net, nets.by_hand)

    return hmc.transition(z, U, grad, p, u, x, net, end)


def graphs(job: Job) -> Peers:
    """On a GPU; those first that are asked for and compile nothing, for the time may end."""

    def step(potential: Callable, wrap: Callable = lambda function: function) -> chains.Step:
        leaps = chains.torch_leaps(job.posterior, job.precision, potential, wrap)
        return chains.transition(leaps, job.posterior, job.L)

    looped = partial(chains.looped, start=job.start)
    graphed = partial(chains.replayed, job.place, start=job.start)
    runs = {
        "autograd": looped(step(nets.by_autograd)),
        "vmap(grad)": looped(step(chains.by_vmap)),
        "CUDA graph, gradient by hand": graphed(step(nets.by_hand)),
        "torch.compile, CUDA graph": graphed(step(nets.by_hand, job.place.compiled)),
        "gradient by hand": looped(step(nets.by_hand)),
    }
    peers, checks = drawing_peers(job, runs)
    more, more_checks = in_jax(job)
    last = peers.pop("gradient by hand")
    return peers | more | {"gradient by hand": last}, checks | more_checks


def drawing_peers(job: Job, runs: dict[str, Callable[[Tensor, Tensor], Tensor]]) -> Peers:
    """Functions of momenta and uniforms, timed on their own draws and checked on ours."""
    z, T = job.posterior.z, job.theirs

    def timed(run: Callable) -> Tensor:
        how = {"device": z.device, "dtype": z.dtype}
        return run(torch.randn(T, *z.shape, **how), torch.rand(T, len(z), **how))

    def check(run: Callable) -> tuple[Tensor, Tensor]:
        return run(*our_draws(z, job.checked)), job.compared()

    return (
        {name: partial(timed, run) for name, run in runs.items()},
        {name: partial(check, run) for name, run in runs.items()},
    )


def in_jax(job: Job, stack: Stack | None = None) -> Peers:
    """``stack`` stands for a decoder with pixels."""
    z, x, net = job.posterior
    found: dict[str, Provider] = {}
    checks: dict[str, Check] = {}
    parts = chains.jax_parts(stack or net, job.precision, z.is_cuda)
    for name, (gradient, last, networks) in parts.items():
        chain = hmc.jax_transitions(gradient, job.L, last)
        own = drawing(chain, (job.theirs, *z.shape))
        found |= jx.jitted(own, *job.start, x, *networks, name=name)
        draws = our_draws(z, job.checked)
        (given,) = jx.jitted(chain, *draws, *job.start, x, *networks).values()
        checks[name] = lambda given=given: (given(), job.compared())
    return found, checks


def drawing(chain: Callable, shape: tuple[int, ...]) -> Callable:
    """The chain with its own random numbers, drawn inside."""

    def run(*arguments):
        import jax

        for_p, for_u = jax.random.split(jax.random.key(0))
        p, u = jax.random.normal(for_p, shape), jax.random.uniform(for_u, shape[:2])
        return chain(p, u, *arguments)

    return run
