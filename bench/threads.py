"""More threads asked for than there are processors, as in a container with a quota: 8 inputs.

The kernels take as many as there are processors, so that no number makes a call much slower than
one thread does.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

import vaefast as vf
from vaefast.bench.place import Place
from vaefast.bench.runner import Benchmark, Case

__all__ = ["cases"]

ASKED = (2, 8, 32, 128)
SLOWER = 1.2  # than one thread, at most


def cases(place: Place) -> list[Case]:
    return [(f"{asked} threads", partial(case, asked, place.tiny)) for asked in ASKED]


def case(asked: int, tiny: bool) -> Benchmark:
    hidden, steps = ((8,), 1) if tiny else ((256, 256), 20)
    vae = vf.models.MLPVAE((1, 28, 28), hidden, 16).eval()
    generator = torch.Generator(device="cpu").manual_seed(1)
    x = torch.rand(8, 1, 28, 28, generator=generator, device="cpu", dtype=torch.float32)

    def sampled(threads: int) -> Tensor:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            return vf.hmc.sample(vae, x, steps=steps, warmup=steps // 2).z
        finally:
            torch.set_num_threads(before)

    return Benchmark(
        op="threads",
        case=f"hmc.sample with {asked} threads, B=8 784-256-256-16 float32 cpu",
        providers={"vaefast": partial(sampled, asked), "one thread": partial(sampled, 1)},
        bytes=1,
        flop=0,
        at_least=1 / SLOWER,
        tolerance=0.0,
    )
