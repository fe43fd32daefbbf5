"""The stages of an audit: attack, defend, measure, certify, compare."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vaefast import attacks, geometry, hmc, metrics
from vaefast.audit.blocks import by_blocks
from vaefast.audit.job import Job, Plan
from vaefast.data import Dataset
from vaefast.hmc.health import say
from vaefast.models import VAE
from vaefast.philox import Use, normal
from vaefast.runtime.reasons import Reasons

__all__ = [
    "Attacked",
    "Defended",
    "attack",
    "classifier",
    "compare",
    "defend",
    "measure",
    "sample_reconstruction",
    "search",
    "unchanged_radius",
]

CLEAN, ATTACKED, PILOT = 0, 1, 2  # which sample of q(z|x): steps of Use.POSTERIOR


@dataclass(frozen=True)
class Attacked:
    plan: Plan
    result: attacks.AttackResult


@dataclass(frozen=True)
class Defended:
    """The defence of one set of inputs, one chain each."""

    z: Tensor  # [B, *latent_shape], the last state
    reconstruction: Tensor  # [B, *event]
    accept_rate: Tensor  # [B]
    divergent: Tensor  # [B]
    failed: Tensor  # [B]
    reasons: Reasons  # what is wrong with each row, "" where nothing is


def attack(job: Job, plan: Plan) -> Attacked:
    settings = job.settings
    options: dict[str, Any] = {"eps": plan.radius, "norm": plan.norm, "seed": settings.seed}
    options |= {"steps": settings.attack_steps, "restarts": settings.restarts}
    options |= {"low": job.low, "high": job.high}
    if settings.restarts > 1:  # one of them starts along the metric's top direction
        options["init"] = "geometric"
    if plan.attack == "latent":
        options["divergence"] = settings.divergence
    work = settings.attack_steps * settings.restarts
    return Attacked(plan, search(job, plan.attack, plan.title, options, work))


def search(
    job: Job,
    attack: str,
    title: str,
    options: dict[str, Any],
    work: int,
    target: Tensor | None = None,
) -> attacks.AttackResult:
    """One attack on all inputs.

    Args:
        attack: "latent" or "max_damage".
        title: what the progress bar calls it.
        options: those of the attack's function, the same for all rows.
        work: steps per input.
        target: [B, ...], one per input.
    """
    function = attacks.latent if attack == "latent" else attacks.max_damage

    def rows(rows: slice, index: Tensor) -> attacks.AttackResult:
        aim: dict[str, Any] = {} if target is None else {"target": target[rows]}
        return function(job.vae, job.x[rows], index=index, **options, **aim)

    stage = job.stages.stage(f"attack   {title}", len(job.x), "attack steps", work)
    with stage as advance, warnings.catch_warnings():
        warnings.simplefilter("ignore", attacks.AttackWarning)  # of a block, by its own numbers
        result = by_blocks(rows, job.x, advance, {"history": 1})
    attacks.result.warn_of(result, title)
    return result


def classifier(job: Job, data: Dataset) -> metrics.LatentClassifier:
    """The linear classifier on μ(x) behind every accuracy, fitted on the training inputs."""
    y = data.y_train
    if y is None:
        raise ValueError("a latent classifier needs the labels of the training inputs")
    with job.stages.stage("compare  latent classifier", len(data.x_train)):
        x = data.x_train.to(job.x)
        return metrics.LatentClassifier.fit(job.vae, x, y.to(x.device), seed=job.settings.seed)


def defend(job: Job, x: Tensor, title: str) -> Defended:
    """The last state of one chain on p(z|x) per row of ``x``, and what it decodes to."""
    settings = job.settings
    options: dict[str, Any] = {"warmup": settings.warmup, "steps": settings.transitions}
    options |= {"leapfrog": settings.leapfrog, "seed": settings.seed}

    def rows(rows: slice, index: Tensor) -> Defended:
        defence = hmc.defend(job.vae, x[rows], chains=1, index=index, **options)
        result = defence.result
        return Defended(
            z=defence.z[:, 0],
            reconstruction=defence.reconstruction[:, 0],
            accept_rate=result.accept_rate[:, 0],
            divergent=result.divergent[:, 0],
            failed=result.failed,
            reasons=result.reasons,
        )

    work = (settings.warmup + settings.transitions) * settings.leapfrog
    stage = job.stages.stage(f"defend   {title}", len(x), "gradients", work)
    with stage as advance, warnings.catch_warnings():
        warnings.simplefilter("ignore", hmc.SamplerWarning)  # of blocks, whose rows are others
        found = by_blocks(rows, x, advance)
    say(f"defend {title}", found.failed, found.reasons, found.z.dtype)
    return found


def measure(job: Job) -> dict[str, Tensor]:
    """Jacobian norms and robustness scores [B], and of the encoder's pullback metric the
    ``eigenvalues`` [B, m] and the leading eigenvectors, ``directions`` [B, *event].
    """

    def rows(rows: slice, index: Tensor) -> dict[str, Tensor]:
        vae, x = job.vae, job.x[rows]
        scores, spectrum = geometry.robustness_scores(vae, x), geometry.pullback_spectrum(vae, x)
        return {
            "encoder_frobenius_norm": geometry.frobenius_norm(vae, x),
            "encoder_spectral_norm": geometry.spectral_norm(vae, x),
            "encoder_spectral_norm_whitened": geometry.spectral_norm(vae, x, whiten=True),
            "reconstruction_spectral_norm": geometry.spectral_norm(vae, x, of="reconstruction"),
            "pullback_spectral_radius": scores.spectral_radius,
            "pullback_entropy": scores.entropy_density,
            "eigenvalues": spectrum.eigenvalues,
            "directions": spectrum.vectors[:, 0],
        }

    with job.stages.stage("measure  Jacobians and spectrum", len(job.x)) as advance:
        return by_blocks(rows, job.x, advance)


@torch.no_grad()
def unchanged_radius(vae: VAE, x: Tensor, seed: int, draws: int = 20) -> float:
    """The 90 % quantile of ‖g(μ+σ⊙η) − g(μ)‖₂, to two digits; its draws are not the margins'."""
    centre = by_blocks(lambda rows, _: vae.reconstruct(x[rows]), x)
    distances = [
        (sample_reconstruction(vae, x, seed, PILOT + draw) - centre).flatten(1).double().norm(dim=1)
        for draw in range(draws)
    ]
    r = torch.cat(distances).nanquantile(0.9).item()
    if not math.isfinite(r):
        raise ValueError("the model's reconstruction of every input is NaN or infinite")
    return float(f"{r:.2g}")


@torch.no_grad()
def compare(
    job: Job, x_adv: Tensor, sampled: Tensor, defended: Tensor, reference: Tensor
) -> dict[str, Tensor]:
    """How far one attack moved the reconstruction, with and without the defence, [B] each.

    Args:
        x_adv: adversarial inputs.
        sampled: their reconstructions without defence, like x.
        defended: those with defence, like x.
        reference: the clean inputs' reconstructions, like x.
    """

    def rows(rows: slice, index: Tensor) -> dict[str, Tensor]:
        return {
            f"{job.measure}_input": job.compared(job.x[rows], x_adv[rows]),
            job.measure: job.compared(reference[rows], sampled[rows]),
            f"{job.measure}_defended": job.compared(reference[rows], defended[rows]),
            "likelihood_degradation": metrics.likelihood_degradation(
                job.vae, job.x[rows], x_adv[rows], seed=job.settings.seed, index=index
            ),
        }

    return by_blocks(rows, job.x)


@torch.no_grad()
def sample_reconstruction(vae: VAE, x: Tensor, seed: int, sample: int) -> Tensor:
    """g(z) for one z ~ q(z|x) per input; ``sample`` tells independent samples apart."""

    def rows(rows: slice, index: Tensor) -> Tensor:
        mean, std = vae.posterior(x[rows])
        noise = normal(
            mean.shape[1], seed=seed, index=index, step=sample, use=Use.POSTERIOR, dtype=mean.dtype
        )
        return vae.g(mean + std * noise)

    return by_blocks(rows, x)
