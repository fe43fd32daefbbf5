"""``vaefast train``, and the training that an audit without a model starts with."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from vaefast import checks, models, training
from vaefast import report as reporting
from vaefast.audit import Timing
from vaefast.cli import options as o
from vaefast.cli.sources import check_range, check_suffix, find_device, read_data
from vaefast.data import Dataset
from vaefast.models import VAE, HierarchicalVAE
from vaefast.training.objectives import OBJECTIVES, named
from vaefast.types import LIKELIHOODS

__all__ = ["build", "check_likelihood", "fit", "train"]

ARCHITECTURES = ("mlp", "conv", "hierarchical")


def train(
    data: o.Data,
    out: o.Out,
    data_root: o.DataRoot = None,
    architecture: o.AnyArchitecture = "mlp",
    latent: o.Latent = 16,
    groups: o.Groups = None,
    epochs: o.Epochs = None,
    patience: o.Patience = None,
    objective: o.Objective = None,
    objective_options: o.ObjectiveOptions = None,
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
    settings = o.settings(objective_options, "--objective-options")
    checks.option(objective or "beta", "--objective", OBJECTIVES)
    check_suffix(out, ".safetensors")
    own = checkpoint is None
    kept = out.with_name(f"{out.name}.checkpoint") if checkpoint is None else checkpoint
    console = Console(highlight=False)
    with reporting.new_file(out, force=force) as file:
        place = find_device(device, threads)
        images = read_data(data, console, root=data_root, box=box)
        likelihood = check_likelihood(likelihood, obs_std, images, data)
        if architecture == "hierarchical":
            vae: VAE | HierarchicalVAE = build_groups(
                images, groups, latent, likelihood, obs_std, seed
            )
        else:
            _refuse_groups(groups, architecture)
            vae = build(architecture, images, latent, likelihood, obs_std, seed)
        facts, _ = fit(
            vae.to(place),
            images,
            console,
            epochs=epochs,
            patience=patience,
            beta=beta,
            seed=seed,
            objective=objective or "beta",
            settings=settings,
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
    options = _options(latent, likelihood, obs_std, seed)
    shape = tuple(data.x_train.shape[1:])
    if architecture == "conv":
        return models.ConvVAE(shape, **options)
    width = 256 if math.prod(shape) <= 256 else 512
    return models.MLPVAE(shape, (width, width), **options)


def build_groups(
    data: Dataset,
    groups: int | None,
    latent: int,
    likelihood: str,
    obs_std: float | None,
    seed: int,
) -> HierarchicalVAE:
    """An untrained hierarchical VAE for the data's inputs, 3 groups by default."""
    options = _options(latent, likelihood, obs_std, seed)
    shape = tuple(data.x_train.shape[1:])
    return HierarchicalVAE(shape, 3 if groups is None else groups, **options)


def _options(latent: int, likelihood: str, obs_std: float | None, seed: int) -> dict[str, Any]:
    options: dict[str, Any] = {"latent": latent, "likelihood": likelihood, "seed": seed}
    return options if obs_std is None else {**options, "obs_std": obs_std}


def _refuse_groups(groups: int | None, architecture: str) -> None:
    checks.option(architecture, "--architecture", ARCHITECTURES)
    if groups is not None:
        raise ValueError(
            f"--groups is for --architecture hierarchical, got architecture {architecture!r}"
        )


def fit(
    vae: VAE | HierarchicalVAE,
    data: Dataset,
    console: Console,
    *,
    epochs: int | None,
    beta: float,
    seed: int,
    objective: str = "beta",
    settings: Mapping[str, Any] | None = None,
    patience: int | None = None,
    checkpoint: Path | None = None,
    checkpoint_minutes: float = 5.0,
) -> tuple[dict[str, str], Timing]:
    """Train with a progress bar; returns what the report says about it, and the time it took."""
    chosen = named(objective, beta, vae, settings or {})
    epochs = epochs or default_epochs(len(data.x_train))
    x = data.x_train.to(next(vae.parameters()).device)
    console.print(f"train    {epochs} epochs on {len(x)} inputs")
    if checkpoint is not None and checkpoint.exists():
        console.print(f"         goes on from {checkpoint}", soft_wrap=True)
    start = time.perf_counter()
    history = training.fit(
        vae,
        x,
        objective=chosen,
        epochs=epochs,
        patience=patience,
        seed=seed,
        checkpoint=checkpoint,
        checkpoint_minutes=checkpoint_minutes,
    )
    vae.eval()
    done = len(history.loss)
    timing = Timing("train", len(x), done * len(x), "seen inputs", time.perf_counter() - start)
    loss = (history.validation or history.loss)[-1 if (n := history.best_epoch) is None else n]
    kind = "" if objective == "beta" else f"objective {_words(objective, settings)}, "
    facts = {
        "training": f"{_length(history, epochs)} on {len(x)} inputs, {kind}beta {beta:g}, "
        f"seed {seed}",
        "validation_loss": f"{loss:.2f} nats per input",
    }
    return facts, timing


def _words(objective: str, settings: Mapping[str, Any] | None) -> str:
    given = ", ".join(f"{name} {value}" for name, value in (settings or {}).items())
    return f"{objective} ({given})" if given else objective


def _length(history: training.History, epochs: int) -> str:
    """How long it was trained, and which epoch's weights are kept."""
    done, kept = len(history.loss), history.best_epoch
    if kept is None:
        return f"{done} epochs"
    stopped = f"stopped after {done} of {epochs} epochs" if history.stopped else f"{done} epochs"
    return f"{stopped} (weights of epoch {kept + 1})"


def default_epochs(rows: int) -> int:
    """As many as see 300,000 inputs, but 10 to 200."""
    return max(10, min(200, 300_000 // rows))
