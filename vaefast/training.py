"""Training a VAE on the evidence lower bound."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from vaefast import checks
from vaefast.elbo import ELBO, elbo_terms, evaluate_elbo
from vaefast.models import VAE
from vaefast.models import context as conditions
from vaefast.models.calls import images
from vaefast.models.context import Context
from vaefast.models.finite_model import check_weights
from vaefast.models.likelihoods import check_pixels
from vaefast.models.prepare import check_vae
from vaefast.philox import check_seed
from vaefast.runtime import memory
from vaefast.runtime.grad_mode import without_autocast

__all__ = ["ELBO", "History", "evaluate_elbo", "fit"]

OBJECTIVES = ("elbo", "beta")


@dataclass(frozen=True)
class History:
    """What one call of :func:`fit` did, one entry per epoch.

    Args:
        loss: mean objective over the training rows, nats per input, lower is better.
        validation: the same over the validation rows, in eval mode; empty without them.
        lr: the learning rate that the epoch was trained with.
    """

    loss: list[float]
    validation: list[float]
    lr: list[float]


@without_autocast
def fit(
    vae: VAE,
    x: Tensor,
    *,
    objective: str = "elbo",
    beta: float = 1.0,
    epochs: int = 100,
    batch_size: int = 128,
    lr: float = 5e-4,
    seed: int = 0,
    validation: float = 0.1,
    patience_lr: int = 10,
    progress: bool = True,
    context: Context = None,
) -> History:
    """Train a VAE in place with Adam on the reparameterised bound, one sample per input and step.

        loss = −log p(x|z) + β·KL(q(z|x) ‖ p(z)),   z = μ(x) + σ(x)·ε,   ε ~ N(0, I)

    The learning rate is halved after ``patience_lr`` epochs without a lower validation loss. The
    same seed gives the same weights on one machine; the caller's random state and the modules'
    training modes are as before when it returns or raises. Ctrl-C leaves the last weights.

    Args:
        vae: whose parameters that require grad are trained.
        x: training inputs [n, *event], in [0, 1] but for the Gaussian likelihood.
        objective: "elbo", or "beta" for the β-VAE.
        beta: weight of the KL term, ≥ 0; with "elbo" it is 1.
        epochs: passes over the training rows.
        batch_size: most rows of one step; an epoch's steps differ by at most one row.
        lr: initial learning rate.
        seed: of the split, the order of the rows, the noise and the modules' dropout.
        validation: fraction of the rows, in [0, 1), that is held out to judge the learning rate.
        patience_lr: epochs without improvement before the learning rate is halved.
        progress: show a bar, on a terminal where tqdm is installed.
        context: conditions of each input for a conditional VAE, [n, ...] or a dict of such
            tensors; split and permuted with the rows of x.

    Raises:
        TypeError: ``vae`` is no VAE, x no floating tensor, or a number of the wrong kind.
        ValueError: an argument out of range, a context of other rows, x or a weight not finite, x
            not in [0, 1], nothing to train, or the loss became NaN or infinite.

    Source: Kingma, Welling 2014 (the bound); Higgins et al. 2017 (β); Kuzina et al. 2022, their
    code (Adam, rate, patience, batch size).
    """
    check_vae(vae)
    beta = _check_objective(objective, beta)
    checks.count(epochs, "epochs")
    checks.count(batch_size, "batch_size")
    _check_inputs(vae, x)
    conditions.check(context, len(x))
    train, held_out = _split(len(x), validation, seed)
    optimiser = torch.optim.Adam(_trainable(vae), lr=_positive(lr, "lr"))
    schedule = ReduceLROnPlateau(
        optimiser, factor=0.5, patience=checks.count(patience_lr, "patience_lr", 0)
    )
    generator = torch.Generator(device="cpu").manual_seed(seed)
    trainer = _Trainer(vae, x, context, beta, batch_size, optimiser, generator)
    unseen = x[held_out], conditions.rows(context, held_out)
    history = History([], [], [])
    with _training(vae, seed), _bar(epochs, progress) as show:
        for _ in range(epochs):
            history.lr.append(optimiser.param_groups[0]["lr"])
            history.loss.append(trainer.epoch(train))
            if len(held_out):
                history.validation.append(_validation_loss(vae, *unseen, beta, seed))
            schedule.step((history.validation or history.loss)[-1])
            show(history)
    return history


@dataclass(frozen=True)
class _Trainer:
    """One pass of the optimiser over the training rows at a time."""

    vae: VAE
    x: Tensor
    context: Context
    beta: float
    batch_size: int
    optimiser: torch.optim.Optimizer
    generator: torch.Generator

    def epoch(self, rows: Tensor) -> float:
        """Mean loss over ``rows``, each step's taken before its update."""
        self.vae.train()
        order = rows[torch.randperm(len(rows), generator=self.generator, device="cpu")]
        batches = order.tensor_split(math.ceil(len(rows) / self.batch_size))
        return sum(self._step(batch) * len(batch) for batch in batches) / len(rows)

    def _step(self, rows: Tensor) -> float:
        x, context = self.x[rows], conditions.rows(self.context, rows)
        mean, logvar = self.vae.encode(x, **conditions.as_keyword(context))
        drawn = torch.randn(mean.shape, generator=self.generator, dtype=mean.dtype, device="cpu")
        noise = drawn.to(mean.device)
        logp, kl = elbo_terms(self.vae, x, mean, logvar, noise, context)
        loss = (self.beta * kl - logp).mean()
        value = loss.item()
        if not math.isfinite(value):
            lr = self.optimiser.param_groups[0]["lr"]
            raise ValueError(f"the loss became {value:g}; train with lr below {lr:g}")
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return value


def _validation_loss(vae: VAE, x: Tensor, context: Context, beta: float, seed: int) -> float:
    """The objective in eval mode, with the same noise every time."""
    vae.eval()
    bound = evaluate_elbo(vae, x, seed=seed, context=context)
    return (beta * bound.kl - bound.reconstruction).mean().item()


@contextmanager
def _training(vae: VAE, seed: int) -> Iterator[None]:
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


@contextmanager
def _bar(epochs: int, progress: bool) -> Iterator[Callable[[History], None]]:
    """Shows a history as it grows; silent without tqdm and where no terminal looks on."""
    try:
        from tqdm import tqdm
    except ImportError:
        yield lambda history: None
        return
    with tqdm(total=epochs, desc="train", unit="epoch", disable=None if progress else True) as bar:

        def show(history: History) -> None:
            last = {"loss": history.loss[-1]}
            if history.validation:
                last["validation"] = history.validation[-1]
            bar.set_postfix({name: f"{value:.2f}" for name, value in last.items()}, refresh=False)
            bar.update()

        yield show


def _split(rows: int, validation: float, seed: int) -> tuple[Tensor, Tensor]:
    """Row numbers for training and validation, drawn from ``seed``; at least one to train."""
    if not 0.0 <= checks.number(validation, "validation") < 1.0:
        raise ValueError(f"validation must be in [0, 1), got {validation:g}")
    held_out = min(math.ceil(rows * validation), rows - 1)
    generator = torch.Generator(device="cpu").manual_seed(check_seed(seed))
    order = torch.randperm(rows, generator=generator, device="cpu")
    return order[held_out:], order[:held_out]


def _check_objective(objective: str, beta: float) -> float:
    checks.option(objective, "objective", OBJECTIVES)
    if not 0.0 <= checks.number(beta, "beta") < math.inf:
        raise ValueError(f"beta must be at least 0 and finite, got {beta:g}")
    if objective == "elbo" and beta != 1.0:
        raise ValueError(f'beta must be 1 with objective "elbo", got {beta:g}; say "beta"')
    return float(beta)


def _check_inputs(vae: VAE, x: Tensor) -> None:
    if not len(images(x)):
        raise ValueError("x must hold at least one input, got none")
    for rows in memory.row_chunks(len(x), 4 * x.element_size() * x.shape[1:].numel()):
        part = x[rows]
        if not bool(torch.isfinite(part).all()):
            raise ValueError("x must be finite, got NaN or infinite values")
    check_pixels(x, vae.likelihood)


def _trainable(vae: VAE) -> list[nn.Parameter]:
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
