"""What public calls cost besides their work: one input, and a VAE of 784-64-8.

Nothing but vaefast's public names, so that ``vaefast bench --base COMMIT public_calls`` also times
commits that have not this file.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

import vaefast as vf
from vaefast.bench.runner import Benchmark

__all__ = ["cases"]

CALLS = {
    "robust_probability": lambda vae, x: vf.certify.robust_probability(vae, x, 1.0, samples=100).p,
    "margin": lambda vae, x: vf.certify.margin(vae, x, 1.0, samples=100).margin,
    "frobenius_norm": lambda vae, x: vf.geometry.frobenius_norm(vae, x),
    "latent": lambda vae, x: vf.attacks.latent(vae, x, eps=0.1, steps=1).x_adv,
    "hmc.sample": lambda vae, x: vf.hmc.sample(vae, x, steps=1, warmup=0, adapt=None).z,
}


def cases(place: Any) -> list:
    """Every call without a progress bar, at its defaults but for the number of steps or samples."""
    return [(name, partial(case, name)) for name in CALLS]


def case(name: str) -> Benchmark:
    torch.manual_seed(0)
    vae = vf.models.MLPVAE((1, 28, 28), (64,), 8).eval()
    generator = torch.Generator(device="cpu").manual_seed(1)
    x = torch.rand(1, 1, 28, 28, generator=generator, device="cpu", dtype=torch.float32)
    return Benchmark(
        op="public_calls",
        case=f"{name} B=1 784-64-8 float32 cpu",
        providers={"vaefast": partial(CALLS[name], vae, x)},
        bytes=1,
        flop=0,
    )
