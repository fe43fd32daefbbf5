"""HMC under a convolutional decoder (mathematics.md §1.6), 512 chains: the path of any module.

A call of ours captures its CUDA graph anew, which takes as long as tens of transitions and goes
into the case once: calls of two lengths tell it from the transitions, which are scaled up.
"""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import vaefast as vf
from vaefast.bench.ops import _chains as chains
from vaefast.bench.ops import _hmc as hmc
from vaefast.bench.place import Place
from vaefast.bench.runner import Benchmark, Case, Check, Provider
from vaefast.runtime.capture import EAGER_RUNS

__all__ = ["cases"]

TRANSITIONS, OURS, THEIRS = 1000, 40, 3  # of which so many are timed
SHORT, REPEATS = 8, 3  # transitions of ours beside OURS, and calls of each
CHECKED = EAGER_RUNS + 3  # transitions, the last ones replayed
STEP = 0.01
AT_LEAST = {"eager": 3.0, "eager, channels last": 3.0}
TOLERANCE = {"bf16": 2e-2, "tf32": 5e-3, "ieee": 1e-3}  # of the largest energy


def cases(place: Place) -> list[Case]:
    """On the CPU this path knows ieee only."""
    precisions = place.size(tuple(TOLERANCE), ("ieee",))
    return [(precision, partial(case, place, precision)) for precision in precisions]


class Job:
    """The decoder, its images and the chains' starts."""

    def __init__(self, place: Place) -> None:
        self.place, self.N = place, place.size(512, 2)
        side, channels = place.size(28, 8), place.size(32, 4)
        d = place.size(64, 4)
        self.vae = vf.models.ConvVAE((1, side, side), channels, d).to(place.device).eval()
        self.vae.requires_grad_(False)
        self.x = place.pixels(self.N, 1, side, side)
        self.start = place.normal(self.N, d, seed=1)
        self.L, self.T = chains.leapfrogs(place), place.size(THEIRS, 2)

    def ours(self, T: int, precision: str, block: int, **layout: Any) -> vf.hmc.HMCResult:
        vf.set_block(block)
        try:
            return vf.hmc.sample(
                self.vae, self.x, init=self.start, steps=T, warmup=0, leapfrog=self.L,
                step_size=STEP, adapt=None, jitter=0.0, keep="last", precision=precision, **layout,
            )  # fmt: skip
        finally:
            vf.set_block(None)

    def compared(self, sample: Callable, precision: str) -> tuple[Tensor, Tensor]:
        """The energy that is reported of the last states, and that of the float32 decoder."""
        result = sample(CHECKED, precision)
        z = result.z[:, 0, -1]
        return result.energy[:, 0, -1], energy(self.vae.decoder, self.x, z) + self.constant

    def once(self, sample: Callable, precision: str) -> float:
        """Seconds of a call of ours that do not grow with its transitions."""
        lengths = self.place.size((SHORT, OURS), (1, 2))
        short, long = (
            statistics.median(
                self.place.clock(partial(sample, T, precision), 1) for _ in range(REPEATS)
            )
            for T in lengths
        )
        each = (long - short) / (lengths[1] - lengths[0])
        return max(0.0, short - lengths[0] * each)

    @property
    def flop(self) -> int:
        """Of a leapfrog: the decoder forward, and back to z alone, for its weights need nothing."""
        with FlopCounterMode(display=False) as counter:
            self.vae.decoder(self.start[:1])
        return 2 * self.N * counter.get_total_flops()

    @property
    def constant(self) -> float:
        return 0.5 * self.start.shape[1] * math.log(2 * math.pi)


def energy(decode: Callable, x: Tensor, z: Tensor) -> Tensor:
    """−log p(x, z) less ½ d log 2π."""
    loss = F.binary_cross_entropy_with_logits(decode(z).float(), x, reduction="none")
    return loss.flatten(1).sum(1) + 0.5 * z.square().sum(1)


def case(place: Place, precision: str) -> Benchmark:
    job, timed = Job(place), place.size(OURS, 2)
    ours = {
        "vaefast, one block": partial(job.ours, block=job.N),
        "vaefast, one block, channels last": partial(
            job.ours, block=job.N, memory_format="channels_last"
        ),
        "vaefast, blocks of 64": partial(job.ours, block=64),
    }
    peers, checks = in_torch(job, precision)
    found: dict[str, Provider] = {
        name: lambda call=call: call(timed, precision).z for name, call in ours.items()
    }
    checks |= {name: partial(job.compared, call, precision) for name, call in ours.items()}
    found = _in_order(found | peers)
    return Benchmark(
        op="convolutional_hmc",
        case=(
            f"{job.N} chains T={TRANSITIONS} L={job.L} {precision}, ours scaled up from {timed},"
            f" theirs from {job.T} transitions {place.device}"
        ),
        providers=found,
        checks=checks,
        scale={
            **dict.fromkeys(found, TRANSITIONS / job.T),
            **dict.fromkeys(ours, TRANSITIONS / timed),
        },
        once={name: cache(partial(job.once, call, precision)) for name, call in ours.items()},
        bytes=TRANSITIONS * (job.x.nbytes + 3 * job.start.nbytes),
        flop=TRANSITIONS * job.L * job.flop,
        precision=precision,
        limit=precision,
        tolerance=TOLERANCE[precision],
        at_least=1.2,
        at_least_of=AT_LEAST,
    )


def _in_order(found: dict[str, Provider]) -> dict[str, Provider]:
    """Ours, then the peers that are asked for: the time may be up before the last."""
    first = ("vaefast, one block", "eager", "torch.compile, CUDA graph", "torch.compile")
    return {name: found[name] for name in (*first, *(n for n in found if n not in first))}


def in_torch(job: Job, precision: str) -> tuple[dict[str, Provider], dict[str, Check]]:
    place, x, z = job.place, job.x, job.start

    def potential(decode: Callable, z: Tensor) -> Tensor:
        with torch.autocast(place.device, torch.bfloat16, enabled=precision == "bf16"):
            return energy(decode, x, z)

    def gradient(of: Callable, z: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            U = of(z)
            (grad,) = torch.autograd.grad(U.sum(), z)
        return U.detach(), grad

    plain, last = job.vae.decoder, channels_last(job.vae.decoder)
    eager, eager_last = partial(potential, plain), partial(potential, last)
    compiled = place.compiled(eager)
    compiled_last = place.compiled(eager_last)
    start = gradient(eager, z)

    def step(of: Callable) -> chains.Step:
        def run(z, p, grad, x, net):
            p = torch.sub(p, grad, alpha=STEP / 2)
            for left in range(job.L, 0, -1):
                z = torch.add(z, p, alpha=STEP)
                U, grad = gradient(of, z)
                p = torch.sub(p, grad, alpha=STEP / 2 if left == 1 else STEP)
            return z, p, grad, U

        return lambda z, U, grad, p, u: hmc.transition(z, U, grad, p, u, x, None, run)

    state = z, *start
    runs = {
        "torch.compile, CUDA graph": chains.replayed(place, step(compiled), state),
        "torch.compile, channels last, CUDA graph": chains.replayed(
            place, step(compiled_last), state
        ),
        "torch.compile": chains.looped(step(compiled), state),
        "eager": chains.looped(step(eager), state),
        "eager, channels last": chains.looped(step(eager_last), state),
    }

    def timed(run: Callable) -> Tensor:
        shape = job.T, *z.shape
        how = {"device": z.device, "dtype": torch.float32}
        return run(torch.randn(shape, **how), torch.rand(shape[:2], **how))

    def check(of: Callable) -> tuple[Tensor, Tensor]:
        """Energies at the starts, theirs and those of the float32 decoder."""
        return gradient(of, z)[0], energy(plain, x, z)

    of = dict(zip(runs, (compiled, compiled_last, compiled, eager, eager_last)))
    return (
        {name: partial(timed, run) for name, run in runs.items()},
        {name: partial(check, of[name]) for name in runs},
    )


def channels_last(module: torch.nn.Module) -> torch.nn.Module:
    """A copy of it."""
    return copy.deepcopy(module).to(memory_format=torch.channels_last)
