"""``vaefast train``, and the training that an audit without a model starts with."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from vaefast import checks, models, training
from vaefast import report as reporting
from vaefast.audit import Timing
from vaefast.cli import options as o
from vaefast.cli.sources import check_range, check_suffix, find_device, read_data
from vaefast.data import Dataset
from vaefast.models import VAE
from vaefast.training.objectives import OBJECTIVES
from vaefast.types import LIKELIHOODS

__all__ = ["build", "check_likelihood", "fit", "train"]


def train(
    data: o.Data,
    out: o.Out,
    data_root: o.DataRoot = None,
    architecture: o.Architecture = "mlp",
    latent: o.Latent = 16,
    epochs: o.Epochs = None,
    objective: o.Objective = None,
    beta: o.Beta = 1.0,
    likelihood: o.Likelihood = None,
    obs_std: o.ObsStd = None,
    limits: o.Range = None,
    low: o.Low = None,
    high: o.High = None,
    seed: o.Seed = 0,
    checkpoint: o.Checkpoint = None,
    checkpoint_minutes: o.CheckpointMinutes = 5.0,
    force: o.Force = False,
    device: o.Device = "cpu",
    threads: o.Threads = None,
) -> None:
    """Train a VAE on a data set and save it as one .safetensors file.

    A run that was killed goes on from its checkpoint when the same command is given again.
    """
    box = o.box(limits, low, high)
    check_suffix(out, ".safetensors")
    own = checkpoint is None
    kept = out.with_name(f"{out.name}.checkpoint") if checkpoint is None else checkpoint
    console = Console(highlight=False)
    with reporting.new_file(out, force=force) as file:
        place = find_device(device, threads)
        images = read_data(data, console, root=data_root, box=box)
        likelihood = check_likelihood(likelihood, obs_std, images, data)
        vae = build(architecture, images, latent, likelihood, obs_std, seed).to(place)
        facts, _ = fit(
            vae,
            images,
            console,
            epochs=epochs,
            beta=beta,
            seed=seed,
            objective=objective or "beta",
            checkpoint=kept,
            checkpoint_minutes=checkpoint_minutes,
        )
        models.save(vae, file)
    if own:
        kept.unlink(missing_ok=True)
    console.print(f"Trained {facts['training']}: {facts['validation_loss']}")
    console.print(f"The model is at {out}", soft_wrap=True)


def check_likelihood(
    likelihood: str | None, obs_std: float | None, data: Dataset, name: str
) -> str:
    """The likelihood to train with, one that goes with the data's range."""
    likelihood = checks.option(likelihood or "bernoulli", "--likelihood", LIKELIHOODS)
    if obs_std is not None and likelihood != "gaussian":
        raise ValueError(f"--obs-std is for --likelihood gaussian, got likelihood {likelihood!r}")
    check_range(likelihood, data, name)
    return likelihood


def build(
    architecture: str,
    data: Dataset,
    latent: int,
    likelihood: str,
    obs_std: float | None,
    seed: int,
) -> VAE:
    """An untrained VAE for the data's inputs."""
    checks.option(architecture, "--architecture", ("mlp", "conv"))
    options: dict[str, Any] = {"latent": latent, "likelihood": likelihood, "seed": seed}
    options |= {} if obs_std is None else {"obs_std": obs_std}
    shape = tuple(data.x_train.shape[1:])
    if architecture == "conv":
        return models.ConvVAE(shape, **options)
    width = 256 if math.prod(shape) <= 256 else 512
    return models.MLPVAE(shape, (width, width), **options)


def fit(
    vae: VAE,
    data: Dataset,
    console: Console,
    *,
    epochs: int | None,
    beta: float,
    seed: int,
    objective: str = "beta",
    checkpoint: Path | None = None,
    checkpoint_minutes: float = 5.0,
) -> tuple[dict[str, str], Timing]:
    """Train with a progress bar; returns what the report says about it, and the time it took."""
    checks.option(objective, "--objective", OBJECTIVES)
    epochs = epochs or default_epochs(len(data.x_train))
    x = data.x_train.to(next(vae.parameters()).device)
    console.print(f"train    {epochs} epochs on {len(x)} inputs")
    if checkpoint is not None and checkpoint.exists():
        console.print(f"         goes on from {checkpoint}", soft_wrap=True)
    start = time.perf_counter()
    history = training.fit(
        vae,
        x,
        objective=objective,
        beta=beta,
        epochs=epochs,
        seed=seed,
        checkpoint=checkpoint,
        checkpoint_minutes=checkpoint_minutes,
    )
    vae.eval()
    timing = Timing("train", len(x), epochs * len(x), "seen inputs", time.perf_counter() - start)
    loss = (history.validation or history.loss)[-1]
    kind = "" if objective == "beta" else f"objective {objective}, "
    facts = {
        "training": f"{epochs} epochs on {len(x)} inputs, {kind}beta {beta:g}, seed {seed}",
        "validation_loss": f"{loss:.2f} nats per input",
    }
    return facts, timing


def default_epochs(rows: int) -> int:
    """As many as see 300,000 inputs, but 10 to 200."""
    return max(10, min(200, 300_000 // rows))
