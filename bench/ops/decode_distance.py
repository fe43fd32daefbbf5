"""``decode_distance`` against plain torch, torch.compile and JAX in several chunks.

The peers draw their own normals; for the check they get ours. Hits may differ by draws that lie on
the boundary to round-off.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from vaefast import ops
from vaefast.bench.memory import peak_growth
from vaefast.bench.ops import _jax as jx
from vaefast.bench.ops import _nets as nets
from vaefast.bench.runner import Benchmark, Check, Provider
from vaefast.functional.latents import latents
from vaefast.types import Network

B, S, STD = 64, 1000, 0.1
CHUNKS = (1, 4, 16)  # inputs at a time, 1000 rows each
MIB = 64.0


def benchmarks() -> Iterator[Benchmark]:
    """Hits of 1000 decoded draws per input; decoder 32-512-512-784: 1.36 MFLOP a draw."""
    for number, shape in enumerate(nets.TABLE):
        mean, std, centre, r, net = case(number, B)
        found, checks = providers(mean, std, centre, r, net)
        memory = partial(peak_growth, __name__, "ours", (number, 2, 10), (number, B, S))
        yield Benchmark(
            op="decode_distance",
            case=f"{shape} B={B} S={S} float32 {nets.DEVICE}",
            providers=found,
            checks=checks,
            tolerance=0.01,
            bytes=nets.weight_bytes(net) + 4 * B * (2 * net.in_features + net.out_features),
            flop=nets.flop(net, B * S),
            ceiling="matrix products alone",
            at_least=1.5 if number == 0 else 1.0,
            memory=memory if sys.platform == "linux" and nets.DEVICE == "cpu" else None,
            mib_at_most=MIB,
        )


def case(number: int, B: int) -> tuple[Tensor, Tensor, Tensor, float, Network]:
    """Means, deviations, centres, and a radius that about half of the draws keep."""
    mean, _, logits = nets.decoder(nets.TABLE[number], B)
    net = logits.with_epilogue("sigmoid")
    std = torch.full_like(mean, STD)
    centre = nets.forward(mean, net)
    draws = mean + std * torch.randn(50, *mean.shape, generator=torch.Generator().manual_seed(1))
    r = (nets.forward(draws, net) - centre).norm(dim=-1).median().item()
    return mean, std, centre, r, net


def ours(number: int, B: int, S: int) -> Callable[[], Tensor]:
    """The call whose memory is measured, by TABLE's row."""
    mean, std, centre, r, net = case(number, B)
    return lambda: ops.decode_distance(mean, std, centre, r, net, samples=S)


def providers(
    mean: Tensor, std: Tensor, centre: Tensor, r: float, net: Network
) -> tuple[dict[str, Provider], dict[str, Check]]:
    """Each returns the hits [B]."""
    d = mean.shape[1]
    rows = 4 * S  # of the products alone: in cache, as often as it takes

    def vaefast() -> Tensor:
        return ops.decode_distance(mean, std, centre, r, net, samples=S).double()

    found: dict[str, Provider] = {
        "vaefast": vaefast,
        "matrix products alone": nets.alone(
            nets.forward_products(net, rows), repeat=math.ceil(B * S / rows)
        ),
    }
    checks: dict[str, Check] = {}

    def our_draws() -> Tensor:
        index, numbers = torch.arange(B), torch.arange(S)
        zero, one = torch.zeros_like(mean), torch.ones_like(mean)
        return latents(zero, one, seed=0, index=index, samples=numbers)

    def drawn(count: Callable, inputs: int, draws: Tensor | None) -> Tensor:
        hits = []
        for start in range(0, B, inputs):
            own = slice(start, start + inputs)
            noise = torch.randn(inputs, S, d, device=mean.device) if draws is None else draws[own]
            hits.append(count(noise, mean[own], std[own], centre[own], r, net))
        return torch.cat(hits).double()

    def fixed(count: Callable, given: tuple) -> tuple[Tensor, Tensor]:
        (hits,) = jx.jitted(count, our_draws(), *given).values()
        return torch.from_dlpack(hits()), vaefast()

    for inputs in CHUNKS:
        name = f"torch.compile, {inputs} inputs at a time"
        compiled = nets.compiled(count)
        found[name] = partial(drawn, compiled, inputs, None)
        checks[name] = lambda f=compiled, n=inputs: (drawn(f, n, our_draws()), vaefast())
    found["eager, 1 inputs at a time"] = partial(drawn, count, 1, None)
    checks["eager, 1 inputs at a time"] = lambda: (drawn(count, 1, our_draws()), vaefast())
    for inputs in CHUNKS if jx.installed() else ():
        name = f"JAX jit, {inputs} inputs at a time"
        given = mean, std, centre, *jx.network(net)
        sizes = r, B, S, inputs
        found |= jx.jitted(jax_count(*sizes, draw=True), mean, *given, name=name)
        checks[name] = partial(fixed, jax_count(*sizes, draw=False), given)
    return found, checks


def count(
    noise: Tensor, mean: Tensor, std: Tensor, centre: Tensor, r: float, net: Network
) -> Tensor:
    """Hits [b] of noise [b, S, d]."""
    z = mean[:, None] + std[:, None] * noise
    image = nets.forward(z.flatten(0, 1), net).unflatten(0, z.shape[:2])
    return ((image.to(centre.dtype) - centre[:, None]).square().sum(-1) <= r * r).sum(1)


def jax_count(r: float, B: int, S: int, inputs: int, *, draw: bool) -> Callable:
    """Hits of all inputs, some at a time; the noise is drawn inside or given."""

    def run(noise, mean, std, centre, *network):
        import jax
        import jax.numpy as jnp

        def one(key_or_noise, mean, std, centre):
            eta = jax.random.normal(key_or_noise, (S, len(mean))) if draw else key_or_noise
            image = jx.forward(mean + std * eta, *network).astype(centre.dtype)
            return (jnp.square(image - centre).sum(-1) <= r * r).sum()

        first = jax.random.split(jax.random.key(0), B) if draw else noise
        every = first, mean, std, centre
        hits = jax.lax.map(lambda row: one(*row), every, batch_size=inputs)
        return hits.astype(jnp.float32)

    return run
