"""``decode_distance``: 1000 draws for each of 10⁶ inputs, scaled up from some of the inputs.

The peers draw their own normals; for the check they get ours. Hits may differ by draws that lie
on the boundary to round-off.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from vaefast import ops
from vaefast.bench.gpu import chains
from vaefast.bench.gpu.place import PRECISIONS, Place, net_at
from vaefast.bench.ops import _jax as jx
from vaefast.bench.ops import _nets as nets
from vaefast.bench.ops.decode_distance import STD, count, jax_count
from vaefast.bench.runner import Benchmark, Check, Provider, tensor_of
from vaefast.functional.latents import latents

__all__ = ["cases"]

INPUTS = 1_000_000
OURS, THEIRS, CHUNK, CHECKED = 4096, 256, 64, 16  # inputs: timed, at a time, compared
SECONDS = {"ieee": 30.0, "bf16": 10.0, "tf32": 10.0}
TOLERANCE = {"ieee": 0.004, "tf32": 0.02, "bf16": 0.08}  # of the largest count


class Job:
    """Means, deviations, centres, and a radius that about half of the draws keep."""

    def __init__(self, place: Place, precision: str) -> None:
        self.place, self.precision = place, precision
        self.shape = place.size(*chains.DECODER)
        self.B, self.S = place.size(OURS, 4), place.size(1000, 20)
        plain = nets.decoder(self.shape, 1, place.device).net
        self.net = plain.with_epilogue("sigmoid")
        self.peer = net_at(self.net, precision)
        self.mean = place.normal(self.B, self.net.in_features)
        self.std = torch.full_like(self.mean, STD)
        self.centre = nets.forward(self.mean, self.net)
        some = self.mean[:64]
        draws = some + STD * place.normal(50, *some.shape, seed=1)
        images = nets.forward(draws, self.net)
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


def cases(place: Place) -> list[tuple[str, Callable[[], Benchmark]]]:
    """1.36 GFLOP an input."""
    return [(precision, partial(case, place, precision)) for precision in PRECISIONS]


def case(place: Place, precision: str) -> Benchmark:
    job = Job(place, precision)
    theirs = place.size(THEIRS, 4)
    found: dict[str, Provider] = {"vaefast": lambda: job.ours(job.B)}
    peers, checks = in_torch(job, theirs)
    more, more_checks = in_jax(job, theirs)
    found |= more | peers
    net = job.net
    return Benchmark(
        op="decode_distance",
        case=(
            f"{job.shape} {INPUTS:,} inputs S={job.S} {precision}, ours scaled up from {job.B:,},"
            f" theirs from {theirs:,} {place.device}"
        ),
        providers=found,
        checks=checks | more_checks,
        scale={**dict.fromkeys(found, INPUTS / theirs), "vaefast": INPUTS / job.B},
        bytes=INPUTS * 4 * (2 * net.in_features + net.out_features),
        flop=INPUTS * nets.flop(net, job.S),
        precision=precision,
        limit=precision,
        tolerance=TOLERANCE[precision],
        seconds_at_most=SECONDS[precision],
        remark=None if precision == "ieee" else job.decided_again,
    )


def in_torch(job: Job, inputs: int) -> tuple[dict[str, Provider], dict[str, Check]]:
    chunk, compared = job.place.size(CHUNK, 2), job.place.size(CHECKED, 2)
    compiled = job.place.compiled(count)

    def hits(run: Callable, inputs: int, chunk: int, draws: Tensor | None) -> Tensor:
        parts = []
        for start in range(0, inputs, chunk):
            mean, std, centre = (t[start : start + chunk] for t in job.rows(inputs))
            shape = chunk, job.S, mean.shape[1]
            noise = torch.randn(shape, device=mean.device) if draws is None else draws
            parts.append(run(noise, mean, std, centre, job.r, job.peer))
        return torch.cat(parts)

    def check(run: Callable) -> tuple[Tensor, Tensor]:
        return hits(run, compared, compared, job.draws(compared)), job.ours(compared)

    runs = {f"torch.compile, {chunk} inputs at a time": compiled, "eager": count}
    return (
        {name: partial(hits, run, inputs, chunk, None) for name, run in runs.items()},
        {name: partial(check, count if job.place.tiny else run) for name, run in runs.items()},
    )


def in_jax(job: Job, inputs: int) -> tuple[dict[str, Provider], dict[str, Check]]:
    if not jx.installed(gpu=job.mean.is_cuda):
        return {}, {}
    chunk, compared = job.place.size(CHUNK, 2), job.place.size(CHECKED, 2)
    name, network = f"JAX jit, {chunk} inputs at a time", jx.network(job.peer)

    def check() -> tuple[Tensor, Tensor]:
        run = jax_count(job.r, compared, job.S, chunk, draw=False)
        given = job.draws(compared), *job.rows(compared)
        (call,) = jx.jitted(run, *given, *network).values()
        return tensor_of(call()), job.ours(compared)

    run = jax_count(job.r, inputs, job.S, chunk, draw=True)
    given = job.mean[:inputs], *job.rows(inputs)
    return jx.jitted(run, *given, *network, name=name), {name: check}
