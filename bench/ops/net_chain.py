"""``net_chain`` against the same transitions in torch, compiled, in JAX and in blackjax.

Every peer draws its own random numbers in what is timed. For the check all but blackjax are given
ours; blackjax's proposal is compared with our trajectory from the momentum that it reports.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from vaefast import ops, philox
from vaefast.bench.cases import Posterior
from vaefast.bench.ops import _hmc as hmc
from vaefast.bench.ops import _jax as jx
from vaefast.bench.ops import _nets as nets
from vaefast.bench.runner import Benchmark, Check, Provider
from vaefast.philox import Use
from vaefast.types import Network

L = hmc.LEAPFROGS
TRANSITIONS = {1: 20, 16: 20, 64: 5, 1024: 2}  # few beside a chain's length; each call packs anew
OUTLIERS = 0.01  # of the entries; a proposal may be accepted here and rejected there

Peers = tuple[dict[str, Provider], dict[str, Check]]


def benchmarks() -> Iterator[Benchmark]:
    """T transitions of 10 leapfrogs; under the decoder 32-512-512-784 27 MFLOP each."""
    for shape in nets.TABLE:
        for N in hmc.ROWS:
            T = TRANSITIONS[N]
            case = nets.decoder(shape, N)
            net, first = case.net, shape == nets.TABLE[0]
            found, checks = providers(case, T)
            yield Benchmark(
                op="net_chain",
                case=f"{shape} N={N} T={T} L={L} float32 {nets.DEVICE}",
                providers=found,
                checks=checks,
                outliers=OUTLIERS,
                bytes=nets.weight_bytes(net) + 4 * N * (4 * net.in_features + net.out_features),
                flop=2 * T * L * nets.flop(net, N),
                ceiling="matrix products alone",
                at_least=hmc.AT_LEAST[N] if first else 1.0,
                percent_at_least=85.0 if first and N == 1024 else math.nan,
            )


def providers(case: Posterior, T: int) -> Peers:
    """Each returns the last position."""
    z, x, net = case
    N = len(z)
    U, grad = ops.net_potential(z, x, net, likelihood="bernoulli")
    options = {"likelihood": "bernoulli", "step": hmc.STEP, "leapfrog": L, "steps": T}
    products = nets.forward_products(net, N) + nets.backward_products(net, N)

    def ours() -> Tensor:
        return ops.net_chain(z, U, grad, x, net, **options).z

    start = z, nets.by_hand(z, x, net)[0], grad  # U without its constant
    found: dict[str, Provider] = {
        "vaefast": ours,
        "matrix products alone": nets.alone(products, repeat=T * L),
    }
    checks: dict[str, Check] = {}
    for peers, theirs in (in_torch(start, x, net, ours, T), in_jax(start, x, net, ours, T)):
        found |= peers
        checks |= theirs
    peers, theirs = in_blackjax(start, x, net, T)
    return found | peers, checks | theirs


def our_draws(z: Tensor, T: int) -> tuple[Tensor, Tensor]:
    """The momenta [T, N, d] and uniforms [T, N] of net_chain with seed 0."""
    index = torch.arange(len(z), device=z.device)
    key = {"seed": 0, "index": index}
    momenta = [
        philox.normal(z.shape[1], step=t, use=Use.MOMENTUM, dtype=z.dtype, **key) for t in range(T)
    ]
    uniforms = [philox.uniform(1, step=t, use=Use.ACCEPT, **key)[:, 0] for t in range(T)]
    return torch.stack(momenta), torch.stack(uniforms).to(z.dtype)


def in_torch(start: tuple, x: Tensor, net: Network, ours: Callable, T: int) -> Peers:
    z = start[0]
    potential, whole = nets.compiled(nets.by_hand), nets.compiled(in_one)

    def around(potential: Callable) -> Callable:
        def end(z, p, grad, x, net):
            return hmc.trajectory(z, p, grad, x, net, potential)

        return lambda *state: hmc.transition(*state, x, net, end)

    steps = {
        "autograd": around(nets.by_autograd),
        "gradient by hand": around(nets.by_hand),
        "torch.compile of the gradient": around(potential),
        "torch.compile of the transition": lambda *state: whole(*state, x, net),
    }

    def run(step: Callable) -> Tensor:
        p, u = torch.randn(T, *z.shape, device=z.device), torch.rand(T, len(z), device=z.device)
        return hmc.transitions(step, start, p, u)

    def check(step: Callable) -> tuple[Tensor, Tensor]:
        return hmc.transitions(step, start, *our_draws(z, T)), ours()

    return (
        {name: partial(run, step) for name, step in steps.items()},
        {name: partial(check, step) for name, step in steps.items()},
    )


def in_one(z, U, grad, p, u, x, net):
    """A transition as torch.compile gets it."""

    def end(z, p, grad, x, net):
        return hmc.trajectory(z, p, grad, x, net, nets.by_hand)

    return hmc.transition(z, U, grad, p, u, x, net, end)


def in_jax(start: tuple, x: Tensor, net: Network, ours: Callable, T: int) -> Peers:
    found: dict[str, Provider] = {}
    checks: dict[str, Check] = {}
    for name, (gradient, network) in hmc.jax_gradients(net).items() if jx.installed() else ():
        chain = hmc.jax_transitions(gradient)
        found |= jx.jitted(drawing(chain, (T, *start[0].shape)), *start, x, *network, name=name)
        (given,) = jx.jitted(chain, *our_draws(start[0], T), *start, x, *network).values()
        checks[name] = lambda given=given: (given(), ours())
    return found, checks


def drawing(chain: Callable, shape: tuple[int, ...]) -> Callable:
    """The chain with its own random numbers, drawn inside."""

    def run(*arguments):
        import jax

        for_p, for_u = jax.random.split(jax.random.key(0))
        p, u = jax.random.normal(for_p, shape), jax.random.uniform(for_u, shape[:2])
        return chain(p, u, *arguments)

    return run


def in_blackjax(start: tuple, x: Tensor, net: Network, T: int) -> Peers:
    """A vmap over the chains of a scan over blackjax's kernel; it starts with U and ∇U."""
    if not jx.installed("blackjax"):
        return {}, {}
    z, U, grad = start
    network = jx.network(net)

    (timed,) = jx.jitted(blackjax_chain(T), z, U, grad, x, *network).values()
    (proposal,) = jx.jitted(blackjax_proposal, z, U, grad, x, *network).values()

    def check() -> tuple[Tensor, Tensor]:
        p, theirs = (torch.from_dlpack(array) for array in proposal())
        options = {"likelihood": "bernoulli", "step": hmc.STEP, "leapfrog": L}
        return theirs, ops.net_trajectory(z, p, grad, x, net, **options)[0]

    return {"blackjax": timed}, {"blackjax": check}


def blackjax_chain(T: int) -> Callable:
    def run(z, U, grad, x, *network):
        import jax

        def one(key, *given):
            step, state = blackjax_kernel(*given, *network)
            keys = jax.random.split(key, T)
            return jax.lax.scan(lambda state, key: (step(key, state)[0], None), state, keys)[0]

        keys = jax.random.split(jax.random.key(0), len(z))
        return jax.vmap(one)(keys, z, U, grad, x).position

    return run


def blackjax_proposal(z, U, grad, x, *network):
    """The momentum and the proposed position of one transition."""
    import jax

    def one(key, *given):
        step, state = blackjax_kernel(*given, *network)
        info = step(key, state)[1]
        return info.momentum, info.proposal.position

    return jax.vmap(one)(jax.random.split(jax.random.key(0), len(z)), z, U, grad, x)


def blackjax_kernel(z, U, grad, x, *network):
    """One chain's step function, and its state from what ours is given as well."""
    import blackjax
    import jax.numpy as jnp
    from blackjax.mcmc.hmc import HMCState

    def log_density(q):
        return -jx.potential(q, x, *network)

    kernel = blackjax.hmc(log_density, hmc.STEP, jnp.ones(len(z)), L)
    return kernel.step, HMCState(z, -U, -grad)
