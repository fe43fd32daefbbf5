"""A vmap over the chains of a scan over blackjax's kernel; it starts with U and ∇U."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vaefast import ops
from vaefast.bench.ops import _hmc as hmc
from vaefast.bench.ops import _jax as jx
from vaefast.bench.runner import Check, Provider
from vaefast.types import Network

__all__ = ["peers"]

L = hmc.LEAPFROGS


def peers(
    start: tuple, x: Tensor, net: Network, T: int
) -> tuple[dict[str, Provider], dict[str, Check]]:
    """Its proposal is compared with our trajectory from the momentum that it reports."""
    if not jx.installed("blackjax"):
        return {}, {}
    z, U, grad = start
    network = jx.network(net)

    (timed,) = jx.jitted(_chain(T), z, U, grad, x, *network).values()
    (proposal,) = jx.jitted(_proposal, z, U, grad, x, *network).values()

    def check() -> tuple[Tensor, Tensor]:
        p, theirs = (torch.from_dlpack(array) for array in proposal())
        options = {"likelihood": "bernoulli", "step": hmc.STEP, "leapfrog": L}
        return theirs, ops.net_trajectory(z, p, grad, x, net, **options)[0]

    return {"blackjax": timed}, {"blackjax": check}


def _chain(T: int) -> Callable:
    def run(z, U, grad, x, *network):
        import jax

        def one(key, *given):
            step, state = _kernel(*given, *network)
            keys = jax.random.split(key, T)
            return jax.lax.scan(lambda state, key: (step(key, state)[0], None), state, keys)[0]

        keys = jax.random.split(jax.random.key(0), len(z))
        return jax.vmap(one)(keys, z, U, grad, x).position

    return run


def _proposal(z, U, grad, x, *network):
    """The momentum and the proposed position of one transition."""
    import jax

    def one(key, *given):
        step, state = _kernel(*given, *network)
        info = step(key, state)[1]
        return info.momentum, info.proposal.position

    return jax.vmap(one)(jax.random.split(jax.random.key(0), len(z)), z, U, grad, x)


def _kernel(z, U, grad, x, *network):
    """One chain's step function, and its state from what ours is given as well."""
    import blackjax
    import jax.numpy as jnp
    from blackjax.mcmc.hmc import HMCState

    def log_density(q):
        return -jx.potential(q, x, *network)

    kernel = blackjax.hmc(log_density, hmc.STEP, jnp.ones(len(z)), L)
    return kernel.step, HMCState(z, -U, -grad)
