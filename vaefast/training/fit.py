"""Training a VAE: checks, the split, and the epochs."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vaefast import checks
from vaefast.models import VAE
from vaefast.models import context as conditions
from vaefast.models.calls import images
from vaefast.models.context import Context
from vaefast.models.finite_model import check_weights
from vaefast.models.groups import Hierarchical
from vaefast.models.likelihoods import check_pixels
from vaefast.models.prepare import check_vae
from vaefast.philox import check_seed
from vaefast.runtime import memory
from vaefast.runtime.grad_mode import without_autocast
from vaefast.training.checkpoint import Checkpoint, digest
from vaefast.training.history import History, bar
from vaefast.training.objectives import Objective, described, find
from vaefast.training.run import Rows, Run
from vaefast.training.upfront import asked_for, promised

__all__ = ["fit"]


@without_autocast
def fit(
    vae: VAE | Hierarchical,
    x: Tensor,
    *,
    objective: str | Objective = "elbo",
    beta: float = 1.0,
    epochs: int = 100,
    batch_size: int = 128,
    lr: float = 5e-4,
    seed: int = 0,
    validation: float = 0.1,
    patience_lr: int = 10,
    patience: int | None = None,
    progress: bool = True,
    context: Context = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_minutes: float = 5.0,
    certified_radius: float | None = None,
    r: float | None = None,
) -> History:
    """Train a VAE in place with Adam on a reparameterised objective, one sample per input and step.

        loss = −log p(x|z) + β·KL(q(z|x) ‖ p(z)),   z = μ(x) + σ(x)·ε,   ε ~ N(0, I)

    The learning rate is halved after ``patience_lr`` epochs without a lower validation loss, and
    with ``patience`` the run ends after as many, with the weights of the best epoch. The same seed
    gives the same weights, bit for bit, on one machine with as many threads, also where the run was
    killed and went on from its ``checkpoint``; the caller's random state and the modules' training
    modes are as before when it returns or raises. Ctrl-C leaves the last weights.

    Args:
        vae: whose parameters that require grad are trained; a hierarchical VAE has the bound of
            :class:`GroupELBO`, with free bits.
        x: training inputs [n, *event], in [0, 1] but for the Gaussian likelihood.
        objective: "elbo"; "beta" for the β-VAE; "tcvae" for the β-TCVAE, where β weighs the total
            correlation (:class:`TCVAE`); "mixup" (:class:`Mixup`), "smooth" (:class:`Smooth`),
            "avae" (:class:`AVAE`), "fisher" (:class:`Fisher`) or "adversarial"
            (:class:`Adversarial`) with the defaults of these; of a hierarchical VAE "seatbelt"
            (:class:`Seatbelt`); or an object with ``terms(vae, x, step) -> dict``
            (:class:`Objective`), as in ``Mixup(weight=0.5)``.
        beta: weight of the KL term or of the total correlation, ≥ 0; with "elbo" it is 1.
        epochs: passes over the training rows.
        batch_size: most rows of one step; an epoch's steps differ by at most one row.
        lr: initial learning rate.
        seed: of the split, the order of the rows, the noise and the modules' dropout.
        validation: fraction of the rows, in [0, 1), that is held out to judge the learning rate.
        patience_lr: epochs without improvement before the learning rate is halved.
        patience: epochs without a lower validation loss, at least 1, before the run stops and the
            model gets the weights and buffers of the epoch with the lowest one, as it also does
            after the last epoch; :class:`History` says which. None: never.
        progress: show a bar with the terms, on a terminal where tqdm is installed.
        context: conditions of each input for a conditional VAE, [n, ...] or a dict of such
            tensors; split and permuted with the rows of x.
        checkpoint: file in which the run is kept, also after its end. Where it exists, the run in
            it goes on, and ``epochs`` may be more than before; a run of other data, objective or
            options is refused. It runs no code when it is read.
        checkpoint_minutes: between two writes of it; 0 writes after every step.
        certified_radius: of a :class:`vaefast.models.LipschitzVAE`, the ‖δ‖₂ that every input is to
            withstand, pixel scale: constants that were left to be chosen, and the ball of σ, are
            set before training so that Theorem 2 (or 3) of Barrett et al. guarantees it; what
            cannot be had is refused. ``vae.constants`` says what was chosen.
        r: radius in output space of that guarantee, as in :func:`vaefast.certify.margin`.

    Raises:
        TypeError: ``vae`` is no VAE, x no floating tensor, or a number of the wrong kind.
        ValueError: an argument out of range, a context of other rows, x or a weight not finite, x
            not in [0, 1], nothing to train, the loss became NaN or infinite, or the checkpoint is
            damaged or of another run.
        OSError: the checkpoint cannot be written.

    Source: Kingma, Welling 2014 (the bound); Higgins et al. 2017 (β); Chen et al. 2018 (the total
    correlation); Kuzina et al. 2022, their code (Adam, rate, patience, batch size).
    """
    if not isinstance(vae, Hierarchical):
        check_vae(vae)
    chosen = find(objective, beta, vae)
    checks.count(epochs, "epochs")
    checks.count(batch_size, "batch_size")
    _check_inputs(vae, x)
    stop_after = _early_stopping(patience, validation, len(x))
    conditions.check(context, len(x))
    rows = Rows(x, context, *_split(len(x), validation, seed))
    options: dict[str, Any] = {
        "batch_size": batch_size,
        "seed": seed,
        "lr": _positive(lr, "lr"),
        "patience": checks.count(patience_lr, "patience_lr", 0),
    }
    run = Run(vae, _trainable(vae), rows, chosen, stop_after=stop_after, **options)
    file = None
    if checkpoint is not None:
        identity = _identity(run, validation) | options | {"early stopping": stop_after}
        identity |= asked_for(vae, certified_radius, r)
        file = Checkpoint(checkpoint, checkpoint_minutes, identity)
    with _training(vae, seed), promised(vae, x, certified_radius, r):
        if file is not None and (kept := file.read()) is not None:
            run.restore(*kept)
        _check_length(run, epochs)
        with bar(epochs * run.batches, run.done, progress) as show:
            while len(run.history.loss) < epochs and not run.stopped:
                run.epoch(show, file)
        if file is not None:
            run.save(file)
        return run.end()


def _early_stopping(patience: int | None, validation: float, rows: int) -> int | None:
    if patience is None:
        return None
    if validation == 0.0 or rows == 1:
        raise ValueError(
            "patience is of the validation loss, and no row is held out for it; pass validation=0.1"
        )
    return checks.count(patience, "patience")


def _identity(run: Run, validation: float) -> dict[str, Any]:
    """What makes two runs one, beside their options."""
    shapes = [[name, list(p.shape), checks.short(p.dtype)] for name, p in _named(run)]
    return {
        "objective": described(run.objective),
        "data": digest(run.rows.x, run.rows.context),
        "validation": validation,
        "parameters": shapes,
    }


def _named(run: Run) -> list[tuple[str, nn.Parameter]]:
    trained = {id(p) for p in run.parameters}
    return [(name, p) for name, p in run.model.named_parameters() if id(p) in trained]


def _check_length(run: Run, epochs: int) -> None:
    done = len(run.history.loss)
    if done > epochs:
        raise ValueError(
            f"epochs must be at least the {done} that the checkpoint has done, got {epochs}"
        )


@contextmanager
def _training(vae: nn.Module, seed: int) -> Iterator[None]:
    """Gradients on, and dropout's random numbers from ``seed``; afterwards all is as before."""
    modes = {module: module.training for module in vae.modules()}
    cuda = {p.device.index or 0 for p in vae.parameters() if p.device.type == "cuda"}
    try:
        with torch.random.fork_rng(devices=cuda), torch.enable_grad():
            torch.default_generator.manual_seed(seed)
            for device in cuda:
                torch.cuda.default_generators[device].manual_seed(seed)
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        vae.zero_grad(set_to_none=True)


def _split(rows: int, validation: float, seed: int) -> tuple[Tensor, Tensor]:
    """Row numbers for training and validation, drawn from ``seed``; at least one to train."""
    if not 0.0 <= checks.number(validation, "validation") < 1.0:
        raise ValueError(f"validation must be in [0, 1), got {validation:g}")
    held_out = min(math.ceil(rows * validation), rows - 1)
    generator = torch.Generator(device="cpu").manual_seed(check_seed(seed))
    order = torch.randperm(rows, generator=generator, device="cpu")
    return order[held_out:], order[:held_out]


def _check_inputs(vae: VAE | Hierarchical, x: Tensor) -> None:
    if not len(images(x)):
        raise ValueError("x must hold at least one input, got none")
    for rows in memory.row_chunks(len(x), 4 * x.element_size() * x.shape[1:].numel()):
        part = x[rows]
        if not bool(torch.isfinite(part).all()):
            raise ValueError("x must be finite, got NaN or infinite values")
    if vae.likelihood is not None:
        check_pixels(x, vae.likelihood)


def _trainable(vae: nn.Module) -> list[nn.Parameter]:
    check_weights(vae)
    parameters = [p for p in vae.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("vae must have parameters that require grad, got none to train")
    half = next((p for p in parameters if p.dtype in (torch.float16, torch.bfloat16)), None)
    if half is not None:
        raise TypeError(
            f"vae must be float32 or float64 to train, got {checks.short(half.dtype)}; "
            "call vae.float()"
        )
    return parameters


def _positive(value: float, name: str) -> float:
    if not 0.0 < checks.number(value, name) < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {value:g}")
    return value
