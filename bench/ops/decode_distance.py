"""``decode_distance`` against plain torch, torch.compile and JAX, some inputs at a time.

The peers draw their own normals; for the check they get ours. Hits may differ by draws that lie on
the boundary to round-off. A CPU's case is a whole call; a GPU's is 10⁶ inputs, scaled up.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vaefast import ops
from vaefast.bench.memory import peak_growth
from vaefast.bench.ops import _jax as jx
from vaefast.bench.ops import _nets as nets
from vaefast.bench.ops._stacks import Stack
from vaefast.bench.place import Place, net_at
from vaefast.bench.runner import Benchmark, Case, Check, Provider, tensor_of
from vaefast.functional.latents import latents
from vaefast.types import Network

__all__ = ["cases"]

STD = 0.1
B, S = 64, 1000  # inputs on a CPU, draws for each
INPUTS = 1_000_000  # on a GPU, of which so many are timed, ours and theirs, and compared
OURS, THEIRS, CHECKED = 4096, 256, 16
CHUNKS = (1, 4, 16)  # inputs at a time, of a CPU
CHUNK = 64  # of a GPU
MIB = 64.0  # that a CPU may take beyond the inputs
SECONDS = {"ieee": 30.0, "bf16": 10.0, "tf32": 10.0}  # asked of a GPU
TOLERANCE = {"ieee": 0.004, "tf32": 0.02, "bf16": 0.08}  # of the largest count, on a GPU

Peers = tuple[dict[str, Provider], dict[str, Check]]


class Job:
    """Means, deviations, centres, and a radius that about half of the draws keep."""

    def __init__(self, place: Place, shape: nets.Shape, precision: str) -> None:
        self.place, self.shape, self.precision = place, shape, precision
        self.B, self.S = place.table(B, OURS, 4), place.size(S, 20)
        self.theirs, self.checked = place.table(B, THEIRS, 4), place.table(B, CHECKED, 2)
        plain = nets.decoder(shape, 1, place.device).net
        self.net = plain.with_epilogue("sigmoid")
        self.peer = net_at(self.net, precision)
        self.chunks = place.table(CHUNKS, (CHUNK,), (2,))
        self.draw(self.net)

    def draw(self, net: Network | Stack) -> None:
        self.mean = self.place.normal(self.B, self.net.in_features)
        self.std = torch.full_like(self.mean, STD)
        self.centre = nets.forward(self.mean, net)
        some = self.mean[:64]
        draws = some + STD * self.place.normal(50, *some.shape, seed=1)
        images = nets.forward(draws.flatten(0, 1), net).unflatten(0, draws.shape[:2])
        self.r = (images - self.centre[:64]).norm(dim=-1).median().item()

    def rows(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        return self.mean[:count], self.std[:count], self.centre[:count]

    def ours(self, count: int) -> Tensor:
        options = {"samples": self.S, "precision": self.precision}
        options["backend"] = self.place.backend("decode_distance")
        return ops.decode_distance(*self.rows(count), self.r, self.net, **options)

    def decided_again(self) -> str:
        """The op logs the share at debug level."""
        heard: list[str] = []
        ear = logging.Handler()
        ear.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
        logger = logging.getLogger("vaefast")
        level = logger.level
        logger.addHandler(ear)
        logger.setLevel(logging.DEBUG)
        try:
            self.ours(self.B)
        finally:
            logger.setLevel(level)
            logger.removeHandler(ear)
        return next((text for text in heard if "again" in text), "decided again: not known")

    def draws(self, count: int) -> Tensor:
        index, numbers = (torch.arange(n, device=self.mean.device) for n in (count, self.S))
        zero = torch.zeros_like(self.mean[:count])
        return latents(zero, torch.ones_like(zero), seed=0, index=index, samples=numbers)


def cases(place: Place) -> list[Case]:
    """Hits of 1000 decoded draws an input; decoder 32-512-512-784: 1.36 GFLOP an input."""
    return [
        (f"{shape} {precision}", partial(case, place, shape, precision))
        for shape in nets.shapes(place)
        for precision in place.precisions
    ]


def case(place: Place, shape: nets.Shape, precision: str) -> Benchmark:
    """Each provider returns the hits of its inputs."""
    job = Job(place, shape, precision)
    rows = 4 * job.S  # of the products alone: in cache, as often as it takes
    repeat = math.ceil(job.B * job.S / rows)
    found: dict[str, Provider] = {
        "vaefast": lambda: job.ours(job.B).double(),
        **nets.ceiling(place, lambda: nets.forward_products(job.net, rows), repeat),
    }
    checks: dict[str, Check] = {}
    for peers, theirs in (in_torch(job), in_jax(job)):
        found |= peers
        checks |= theirs
    inputs = B if place.on_cpu else INPUTS
    options = on_cpu(job) if place.on_cpu else on_gpu(job, found)
    return Benchmark(
        op="decode_distance",
        providers=found,
        checks=checks,
        bytes=inputs * 4 * (2 * job.net.in_features + job.net.out_features),
        flop=inputs * nets.flop(job.net, job.S),
        **{**place.held_to(precision), **options},
    )


def on_cpu(job: Job) -> dict[str, Any]:
    row = nets.TABLE.index(job.shape)
    memory = partial(peak_growth, __name__, "call", (row, 2, 10), (row, B, S))
    return {
        "case": f"{job.shape} B={B} S={S} {job.place.named()}",
        "tolerance": 0.01,
        "at_least": 1.5 if row == 0 else 1.0,
        "memory": memory if sys.platform == "linux" else None,
        "mib_at_most": MIB,
    }


def on_gpu(job: Job, found: dict[str, Provider]) -> dict[str, Any]:
    part = f"ours scaled up from {job.B:,}, theirs from {job.theirs:,}"
    return {
        "case": f"{job.shape} {INPUTS:,} inputs S={job.S} {job.precision}, {part}"
        f" {job.place.device}",
        "scale": {**dict.fromkeys(found, INPUTS / job.theirs), "vaefast": INPUTS / job.B},
        "tolerance": TOLERANCE[job.precision],
        "seconds_at_most": SECONDS[job.precision],
        "remark": None if job.precision == "ieee" else job.decided_again,
    }


def call(row: int, inputs: int, samples: int) -> Callable[[], Tensor]:
    """The call whose memory is measured, by TABLE's row."""
    job = Job(Place("cpu"), nets.TABLE[row], "ieee")
    rows = job.rows(inputs)
    return lambda: ops.decode_distance(*rows, job.r, job.net, samples=samples)


def in_torch(job: Job) -> Peers:
    compiled = job.place.compiled(count)

    def hits(run: Callable, inputs: int, chunk: int, draws: Tensor | None) -> Tensor:
        parts = []
        for start in range(0, inputs, chunk):
            own = slice(start, start + chunk)
            mean, std, centre = (t[own] for t in job.rows(inputs))
            shape = len(mean), job.S, mean.shape[1]
            noise = (
                torch.randn(shape, device=mean.device, dtype=mean.dtype)
                if draws is None
                else draws[own]
            )
            parts.append(run(noise, mean, std, centre, job.r, job.peer))
        return torch.cat(parts).double()

    def check(run: Callable, chunk: int) -> tuple[Tensor, Tensor]:
        chunk = chunk if job.place.on_cpu else job.checked
        return hits(run, job.checked, chunk, job.draws(job.checked)), job.ours(job.checked)

    runs = {f"torch.compile, {n} inputs at a time": (compiled, n) for n in job.chunks}
    runs[f"eager, {job.chunks[0]} inputs at a time"] = count, job.chunks[0]
    return (
        {name: partial(hits, run, job.theirs, n, None) for name, (run, n) in runs.items()},
        {name: partial(check, *run) for name, run in runs.items()},
    )


def in_jax(job: Job) -> Peers:
    found: dict[str, Provider] = {}
    checks: dict[str, Check] = {}
    network = jx.network(job.peer)
    for chunk in job.chunks if jx.installed(gpu=job.mean.is_cuda) else ():
        name = f"JAX jit, {chunk} inputs at a time"
        run = jax_count(job.r, job.theirs, job.S, chunk, draw=True)
        given = job.mean[: job.theirs], *job.rows(job.theirs)
        found |= jx.jitted(run, *given, *network, name=name)
        checks[name] = partial(checked_in_jax, job, chunk)
    return found, checks


def checked_in_jax(job: Job, chunk: int) -> tuple[Tensor, Tensor]:
    run = jax_count(job.r, job.checked, job.S, chunk, draw=False)
    given = job.draws(job.checked), *job.rows(job.checked)
    (hits,) = jx.jitted(run, *given, *jx.network(job.peer)).values()
    return tensor_of(hits()), job.ours(job.checked)


def count(
    noise: Tensor, mean: Tensor, std: Tensor, centre: Tensor, r: float, net: Network | Stack
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
