"""blackjax's HMC and NUTS with window adaptation, every chain adapting for itself, all at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

import vaefast as vf
from vaefast.bench.ops import _jax as jx
from vaefast.bench.ops._stacks import stack
from vaefast.hmc.start import posterior_draws
from vaefast.models.prepare import prepare
from vaefast.types import Network, all_linear

__all__ = ["PEERS"]

LEAPFROGS = 10  # of HMC
Run = Callable[[], tuple[Tensor, float]]  # draws [B, C, T, d], and no number of leapfrogs


def peer(
    kernel: str, vae: vf.VAE, x: Tensor, chains: int, warmup: int, steps: int, seed: int
) -> Run:
    """Compiled here; the chains start where ours do, at draws of q(z|x).

    Raises:
        ValueError: blackjax is not installed.
    """
    if not jx.installed("blackjax"):
        raise ValueError(
            f"blackjax {kernel} needs blackjax and JAX; {jx.missing() or 'no blackjax'}"
        )
    import jax

    z, images, net = _start(vae, x, chains, seed)
    network = jx.network(net if all_linear(net.layers) else stack(net))
    static = network[-1]
    weights = jx.arrays(network[:-1])
    one = partial(_chain, kernel, warmup, steps, str(static))
    every = jax.jit(jax.vmap(one, in_axes=(0, 0, 0, None)))
    given = jax.random.split(jax.random.key(seed), len(z)), *jx.arrays((z, images)), weights
    compiled = every.lower(*given).compile()

    def run() -> tuple[Tensor, float]:
        draws = torch.from_dlpack(jax.block_until_ready(compiled(*given)))
        return draws.unflatten(0, (len(x), chains)), float("nan")

    return run


def _start(vae: vf.VAE, x: Tensor, chains: int, seed: int) -> tuple[Tensor, Tensor, Network]:
    """z [N, d], images [N, D] and the decoder."""
    rows = prepare(vae, x)
    net = rows.maps.decoder.lowered
    assert net is not None
    index = torch.arange(len(x), device="cpu")
    z = posterior_draws(*rows.maps.posterior(x), chains, seed=seed, index=index)
    return z, x.flatten(1).repeat_interleave(chains, 0), net


def _chain(kernel: str, warmup: int, steps: int, layers: str, key: Any, z: Any, x: Any, net: Any):
    """Positions [T, d] of one chain."""
    import blackjax
    import jax

    def log_density(z):
        return -jx.potential(z, x, *net, layers)

    algorithm = getattr(blackjax, kernel)
    fixed = {"num_integration_steps": LEAPFROGS} if kernel == "hmc" else {}
    adapting, sampling = jax.random.split(key)
    adaptation = blackjax.window_adaptation(algorithm, log_density, **fixed)
    (state, parameters), _ = adaptation.run(adapting, z, num_steps=warmup)
    step = algorithm(log_density, **parameters).step

    def move(state, key):
        state, _ = step(key, state)
        return state, state.position

    return jax.lax.scan(move, state, jax.random.split(sampling, steps))[1]


PEERS: dict[str, Callable[..., Run]] = {
    "blackjax HMC, L=10, window adaptation": partial(peer, "hmc"),
    "blackjax NUTS, window adaptation": partial(peer, "nuts"),
}
