"""Models that run as modules beside plain PyTorch loops at the same batch: a convolutional VAE.

Ours are whole public calls, checks included; the loops are what a user writes who knows PyTorch:
fixed weights, gradients of the input alone, no checks, both memory formats, and torch.compile of
what is called in every step.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

import vaefast as vf
from vaefast.bench.generic_loops import ATTACK, LEAPFROG, LOOPS, RADIUS, STEP, repeated
from vaefast.bench.generic_table import WITHIN
from vaefast.bench.place import Place
from vaefast.bench.runner import Benchmark, Case, Check, Provider

__all__ = ["cases"]

ROWS = (1, 10, 64, 500)
OURS, COMPILED = "vaefast", 'vaefast, set_generic("compile")'


class Work(NamedTuple):
    """One public function, and how long its calls are at each number of ROWS."""

    call: Callable  # of the VAE, x and the amount
    result: Callable  # of what it returns, a tensor
    amounts: tuple[int, ...]
    compiled: bool = True  # whether it takes set_generic("compile")


WORK = {
    "hmc.sample": Work(
        lambda vae, x, T: vf.hmc.sample(
            vae, x, steps=T, warmup=0, adapt=None, step_size=STEP, leapfrog=LEAPFROG, jitter=0.0
        ),
        lambda result: result.energy,
        (10, 4, 2, 2),
    ),
    "latent": Work(
        lambda vae, x, steps: vf.attacks.latent(vae, x, steps=steps, **ATTACK),
        lambda result: result.objective,
        (100, 50, 20, 20),
    ),
    "max_damage": Work(
        lambda vae, x, steps: vf.attacks.max_damage(vae, x, steps=steps, **ATTACK),
        lambda result: result.objective,
        (20, 10, 4, 1),
    ),
    "robust_probability": Work(
        lambda vae, x, samples: vf.certify.robust_probability(vae, x, RADIUS, samples=samples),
        lambda result: result.p,
        (1000, 300, 100, 30),
    ),
    "frobenius_norm": Work(
        lambda vae, x, calls: repeated(calls, vf.geometry.frobenius_norm, vae, x),
        lambda result: result,
        (8, 1, 1, 1),
        compiled=False,
    ),
    "spectral_norm": Work(
        lambda vae, x, calls: repeated(calls, vf.geometry.spectral_norm, vae, x),
        lambda result: result,
        (8, 1, 1, 1),
        compiled=False,
    ),
}


def cases(place: Place) -> list[Case]:
    """The published decoder and its encoder, 28x28 and 64 latents, on a CPU."""
    return [
        (f"{name} {rows}", partial(case, place, name, rows, amount))
        for name, work in WORK.items()
        for rows, amount in zip(ROWS, work.amounts)
    ]


def case(place: Place, name: str, rows: int, amount: int) -> Benchmark:
    work = WORK[name]
    vae = published()
    x = place.pixels(rows, 1, 28, 28)
    ours = partial(work.call, vae, x, amount)
    found: dict[str, Provider] = {OURS: lambda: work.result(ours())}
    if work.compiled:
        found[COMPILED] = lambda: work.result(_compiled(ours))
    loops = LOOPS[name]
    layouts = {"eager": vae, "eager, channels last": channels_last(vae)}
    checks: dict[str, Check] = {}
    for layout, model in layouts.items():
        for loop, run in loops.plain.items():
            found[layout + loop] = partial(run, model, x, amount)
            checks[layout + loop] = partial(loops.check, model, x, ours)
    for layout, model in layouts.items() if loops.compiled else ():
        title = layout.replace("eager", "torch.compile")
        found[title] = partial(loops.compiled(model), x, amount)
        checks[title] = partial(loops.check, model, x, ours)
    return Benchmark(
        op="generic",
        case=f"{name} B={rows} {loops.unit}={amount} convolutional float32 cpu",
        providers=found,
        checks=checks,
        bytes=1,
        flop=0,
        tolerance=loops.tolerance,
        at_least=1 / WITHIN,
    )


class Kept(torch.nn.Module):
    """The identity of numbers, by an operation that no network has: the model stays a module."""

    def forward(self, rows: Tensor) -> Tensor:
        return rows.nan_to_num()


def published() -> vf.VAE:
    """The published decoder and its encoder."""
    vae = vf.models.ConvVAE()
    vae.encoder.trunk.insert(0, Kept())
    vae.decoder.insert(0, Kept())
    return vae.eval().requires_grad_(False)


def _compiled(ours: Provider):
    vf.set_generic("compile")
    try:
        return ours()
    finally:
        vf.set_generic("eager")


def channels_last(module: torch.nn.Module) -> torch.nn.Module:
    """A copy of it."""
    return copy.deepcopy(module).to(memory_format=torch.channels_last)
