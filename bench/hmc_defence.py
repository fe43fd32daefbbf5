"""The defence of Kuzina et al. 2022 on 50 references: ours at once, theirs 10 chains at a time.

Some of the 750 transitions are timed and the time is scaled up; the published loop also on some
of the references only. The convolutional job is among the cases of ``bench/convolutional.py``.
Both models are untrained: no cost here depends on the weights.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

import vaefast as vf
from vaefast.bench.cases import images
from vaefast.bench.place import Place
from vaefast.bench.runner import Benchmark, Case, Check, Provider

__all__ = ["cases"]

REFERENCES, ADVERSARIAL, TRANSITIONS, LEAPFROGS = 50, 10, 750, 20
STEP, CLAMP = 0.1, 1e-5


class Part(NamedTuple):
    """What is timed of the whole job."""

    inputs: int  # of the 500, ours; whole references
    transitions: int  # of the 750, ours; a multiple of 3
    references: int  # of the 50, the published loop
    published: int  # transitions of the published loop

    @property
    def scale(self) -> float:
        return REFERENCES * ADVERSARIAL / self.inputs * TRANSITIONS / self.transitions

    @property
    def published_scale(self) -> float:
        return REFERENCES / self.references * TRANSITIONS / self.published

    def __str__(self) -> str:
        return (
            f"ours scaled up from {self.inputs} inputs and {self.transitions} transitions,"
            f" theirs from {self.references} references and {self.published} transitions"
        )


MLP, CONVOLUTIONAL = Part(500, 6, 2, 3), Part(250, 3, 1, 3)


def cases(place: Place) -> list[Case]:
    """The job of the MLP decoder 32-512-512-784; on a CPU."""
    return [("MLP", partial(mlp, MLP))]


def mlp(part: Part) -> Benchmark:
    vae = vf.models.MLPVAE((1, 28, 28), (512, 512), 32, "tanh")
    return case("32-512-512-784 tanh", vae, part, 15.0)


def convolutional(part: Part) -> Benchmark:
    """Of the published decoder; through the fused ops.

    Raises:
        AssertionError: the decoder is not fused.
    """
    vae = vf.models.ConvVAE()
    assert vf.explain(vae.eval(), images(1, 784).x.view(1, 1, 28, 28)).decoder.fused
    return case("convolutional", vae, part, 4.0)


def case(name: str, vae: vf.VAE, part: Part, at_least: float) -> Benchmark:
    found, checks = providers(vae.eval(), part)
    job = f"{REFERENCES}x{ADVERSARIAL} inputs T={TRANSITIONS} L={LEAPFROGS} float32 cpu"
    return Benchmark(
        op="hmc_defence",
        case=f"{name} {job}, {part}",
        providers=found,
        checks=checks,
        scale={**dict.fromkeys(found, part.scale), "published loop": part.published_scale},
        bytes=1,
        flop=0,
        at_least=at_least,
    )


def providers(vae: vf.VAE, part: Part) -> tuple[dict[str, Provider], dict[str, Check]]:
    """Each returns last latents."""
    x = images(part.inputs, 784).x.view(part.inputs, 1, 28, 28)
    steps = part.transitions * 2 // 3  # after half as many of burn-in
    common = {"leapfrog": LEAPFROGS, "step_size": STEP, "keep": "last", "steps": steps}
    fixed = {"adapt": None, "jitter": 0.0, "warmup": steps // 2, **common}
    schedule = {"schedule": "kuzina2022", "group": ADVERSARIAL, **common}

    def sampled(options: dict) -> vf.hmc.HMCResult:
        return vf.hmc.sample(vae, x, **options)

    def published() -> list[Tensor]:
        own = x.split(ADVERSARIAL)[: part.references]
        return [published_loop(vae, rows, part.published) for rows in own]

    def energies() -> tuple[Tensor, Tensor]:
        """Theirs and ours at our last states; equal but for ½ d log 2π."""
        result = sampled(fixed)
        z = result.z[:, 0, -1]
        constant = 0.5 * z.shape[1] * math.log(2 * math.pi)
        return energy(vae, z, x) + constant, result.energy[:, 0, -1]

    def accepted() -> tuple[Tensor, Tensor]:
        rate = sampled(schedule).accept_rate
        return ((rate >= 0) & (rate <= 1)).double(), torch.ones_like(rate)

    found = {
        "vaefast": lambda: sampled(fixed).z,
        'vaefast, schedule="kuzina2022"': lambda: sampled(schedule).z,
        "published loop": lambda: published()[0],
    }
    return found, {'vaefast, schedule="kuzina2022"': accepted, "published loop": energies}


def published_loop(vae: vf.VAE, x: Tensor, transitions: int) -> Tensor:
    """One reference: 21 gradients and 2 energies a transition, one step size for the batch."""
    with torch.no_grad():
        mean, logvar = vae.posterior(x)
    z, step = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean), STEP
    for _ in range(transitions):
        p = torch.randn_like(z)
        start = hamiltonian(vae, z, p, x)
        end_z, end_p = z, p - 0.5 * step * gradient(vae, z, x)
        for left in range(LEAPFROGS, 0, -1):
            end_z = end_z + step * end_p
            kick = 0.5 * step if left == 1 else step
            end_p = end_p - kick * gradient(vae, end_z, x)
        change = start - hamiltonian(vae, end_z, end_p, x)
        accepted = torch.rand_like(change).log() < change
        z = torch.where(accepted[:, None], end_z, z)
        step *= 1 + 0.01 * (accepted.float().mean().item() - 0.9) / 0.9
    return z


def hamiltonian(vae: vf.VAE, z: Tensor, p: Tensor, x: Tensor) -> Tensor:
    with torch.no_grad():
        return energy(vae, z, x) + 0.5 * p.square().sum(1)


def gradient(vae: vf.VAE, z: Tensor, x: Tensor) -> Tensor:
    z = z.detach().requires_grad_()
    return torch.autograd.grad(energy(vae, z, x).sum(), z)[0]


def energy(vae: vf.VAE, z: Tensor, x: Tensor) -> Tensor:
    """−log p(x, z) of the clamped Bernoulli, less ½ d log 2π."""
    pixel = torch.sigmoid(vae.decoder(z)).clamp(CLAMP, 1 - CLAMP)
    logp = (x * pixel.log() + (1 - x) * (1 - pixel).log()).flatten(1).sum(1)
    return 0.5 * z.square().sum(1) - logp
