"""One run of the training: its state, its steps, and all that has to be kept to go on with it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from vaefast.models import context as conditions
from vaefast.models.context import Context
from vaefast.training.checkpoint import Checkpoint
from vaefast.training.history import History, Show
from vaefast.training.objectives import Objective
from vaefast.training.step import Step

__all__ = ["Rows", "Run"]

SCHEDULE = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch", "_last_lr")


@dataclass(frozen=True)
class Rows:
    """The inputs, and which of them are trained on and held out."""

    x: Tensor
    context: Context
    train: Tensor  # int64
    held_out: Tensor  # int64


@dataclass
class _Epoch:
    """An epoch in progress."""

    order: Tensor  # int64, the training rows
    batches: int = 0  # done
    sums: dict[str, float] = field(default_factory=dict)  # over the rows seen

    def means(self, rows: int) -> dict[str, float]:
        return {name: value / rows for name, value in self.sums.items()}


class Run:
    """Steps of Adam on an objective, an epoch at a time.

    Args:
        model: a VAE or a hierarchical one.
        parameters: those that are trained.
        rows: of the data.
        objective: what is minimised.
        batch_size: most rows of one step.
        seed: of the order, the noise and the validation's noise.
        lr: initial learning rate.
        patience: epochs without improvement before the rate is halved.
        stop_after: epochs without a lower validation loss before the run stops; None: never.
    """

    def __init__(
        self,
        model: nn.Module,
        parameters: list[nn.Parameter],
        rows: Rows,
        objective: Objective,
        *,
        batch_size: int,
        seed: int,
        lr: float,
        patience: int,
        stop_after: int | None = None,
    ) -> None:
        self.model, self.parameters, self.rows, self.objective = model, parameters, rows, objective
        self.seed, self.batch_size = seed, batch_size
        self.optimiser = torch.optim.Adam(parameters, lr=lr)
        self.schedule = ReduceLROnPlateau(self.optimiser, factor=0.5, patience=patience)
        self.generator = torch.Generator(device="cpu").manual_seed(seed)
        self.history = History([], [], [])
        self._epoch: _Epoch | None = None
        self._stop_after = stop_after
        self._best: dict[str, Tensor] = {}  # weights and buffers of the best epoch so far

    @property
    def stopped(self) -> bool:
        """Whether early stopping has seen enough epochs since the best one."""
        if self._stop_after is None or not self.history.validation:
            return False
        return len(self.history.validation) - 1 - best(self.history) >= self._stop_after

    def end(self) -> History:
        """Give the model the weights of the best epoch, where early stopping was asked for."""
        if self._stop_after is None:
            return self.history
        self._overwrite(self._best)
        return replace(self.history, best_epoch=best(self.history), stopped=self.stopped)

    @property
    def batches(self) -> int:
        """Steps of an epoch."""
        return math.ceil(len(self.rows.train) / self.batch_size)

    @property
    def done(self) -> int:
        """Steps so far."""
        started = 0 if self._epoch is None else self._epoch.batches
        return len(self.history.loss) * self.batches + started

    def epoch(self, show: Show, checkpoint: Checkpoint | None) -> None:
        """The next epoch, or what is left of it."""
        epoch = self._epoch = self._epoch or self._started()
        self.model.train()
        batches = epoch.order.tensor_split(self.batches)
        seen = sum(len(batch) for batch in batches[: epoch.batches])
        for batch in batches[epoch.batches :]:
            for name, mean in self._step(batch).items():
                epoch.sums[name] = epoch.sums.get(name, 0.0) + mean * len(batch)
            epoch.batches, seen = epoch.batches + 1, seen + len(batch)
            show(epoch.means(seen))
            if checkpoint is not None and checkpoint.is_due:
                self.save(checkpoint)
        self._finish(epoch.means(seen))

    def _started(self) -> _Epoch:
        self.history.lr.append(self.optimiser.param_groups[0]["lr"])
        train = self.rows.train
        return _Epoch(train[torch.randperm(len(train), generator=self.generator, device="cpu")])

    def _finish(self, means: dict[str, float]) -> None:
        self.history.loss.append(means.pop("loss"))
        for name, mean in means.items():
            self.history.terms.setdefault(name, []).append(mean)
        if len(self.rows.held_out):
            self.history.validation.append(self._validation_loss())
            if self._stop_after is not None and best(self.history) == len(self.history.loss) - 1:
                self._best = {f"best.{n}": t.detach().clone() for n, t in self._model_tensors()}
        self.schedule.step((self.history.validation or self.history.loss)[-1])
        self._epoch = None

    def _step(self, batch: Tensor) -> dict[str, float]:
        """One step on some rows; the means of the terms before it."""
        means = self._terms(batch, self.generator, training=True)
        values = dict(zip(means, torch.stack(list(means.values())).tolist()))
        if not math.isfinite(values["loss"]):
            lr = self.optimiser.param_groups[0]["lr"]
            raise ValueError(f"the loss became {values['loss']:g}; train with lr below {lr:g}")
        self.optimiser.zero_grad()
        means["loss"].backward()
        self.optimiser.step()
        return values

    @torch.no_grad()
    def _validation_loss(self) -> float:
        """The objective in eval mode, with the same noise every time."""
        self.model.eval()
        held_out = self.rows.held_out
        generator = torch.Generator(device="cpu").manual_seed(self.seed)
        total = 0.0
        for batch in held_out.tensor_split(math.ceil(len(held_out) / self.batch_size)):
            loss = self._terms(batch, generator, training=False)["loss"]
            total += loss.item() * len(batch)
        return total / len(held_out)

    def _terms(
        self, batch: Tensor, generator: torch.Generator, *, training: bool
    ) -> dict[str, Tensor]:
        """Mean of each of the objective's terms over some rows, float64 []."""
        context = conditions.rows(self.rows.context, batch)
        step = Step(generator, len(self.rows.train), context, training)
        terms = self.objective.terms(self.model, self.rows.x[batch], step)
        if not isinstance(terms, dict) or not isinstance(terms.get("loss"), Tensor):
            kind = type(self.objective).__name__
            raise TypeError(f'{kind}.terms must return a dict of tensors with "loss" in it')
        return {name: term.double().mean() for name, term in terms.items()}

    def save(self, checkpoint: Checkpoint) -> None:
        """Everything that the next steps depend on."""
        epoch = self._epoch
        state = {
            "history": vars(self.history) | {"resumed": 0},
            "lr": self.optimiser.param_groups[0]["lr"],
            "schedule": {name: getattr(self.schedule, name) for name in SCHEDULE},
            "epoch": None if epoch is None else {"batches": epoch.batches, "sums": epoch.sums},
        }
        tensors = dict(self._tensors()) | self._best
        if epoch is not None:
            tensors["epoch.order"] = epoch.order
        checkpoint.write(tensors, state)

    def restore(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Go on from what :meth:`save` wrote.

        Raises:
            ValueError: it is of a model with other tensors.
        """
        order = tensors.pop("epoch.order", None)
        self._best = {n: tensors.pop(n) for n in [*tensors] if n.startswith("best.")}
        self._take_moments(tensors)
        own = dict(self._tensors())
        if own.keys() != tensors.keys() or any(own[n].shape != t.shape for n, t in tensors.items()):
            raise ValueError("the checkpoint is of a model with other tensors than vae; delete it")
        with torch.no_grad():
            for name, tensor in tensors.items():
                if not name.startswith("random."):
                    own[name].copy_(tensor)
        _set_random_states(self.generator, tensors)
        self.optimiser.param_groups[0]["lr"] = state["lr"]
        for name, value in state["schedule"].items():
            setattr(self.schedule, name, value)
        if state["epoch"] is not None and order is not None:
            self._epoch = _Epoch(order, **state["epoch"])
        self.history = replace(History(**state["history"]))
        self.history = replace(self.history, resumed=self.done)

    def _take_moments(self, tensors: dict[str, Tensor]) -> None:
        """Give Adam the state that it makes at its first step, to be overwritten."""
        for i, parameter in enumerate(self.parameters):
            start = f"adam.{i}."
            for name in [name for name in tensors if name.startswith(start)]:
                key = name.removeprefix(start)
                device = "cpu" if key == "step" else parameter.device
                kept = torch.empty_like(tensors[name], device=device)
                self.optimiser.state[parameter][key] = kept

    def _overwrite(self, kept: dict[str, Tensor]) -> None:
        """Weights and buffers from the tensors of the same names after ``best.``."""
        with torch.no_grad():
            for name, tensor in self._model_tensors():
                tensor.copy_(kept[f"best.{name}"])

    def _model_tensors(self) -> Iterator[tuple[str, Tensor]]:
        yield from self.model.named_parameters()
        yield from self.model.named_buffers()

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in self._model_tensors():
            yield f"model.{name}", tensor
        for i, parameter in enumerate(self.parameters):
            for key, value in self.optimiser.state.get(parameter, {}).items():
                yield f"adam.{i}.{key}", value
        yield "random.run", self.generator.get_state()
        yield "random.cpu", torch.default_generator.get_state()
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            for i, state in enumerate(torch.cuda.get_rng_state_all()):
                yield f"random.cuda.{i}", state


def best(history: History) -> int:
    """The first epoch with the lowest validation loss; one that is NaN is no candidate."""
    losses = [math.inf if math.isnan(loss) else loss for loss in history.validation]
    return losses.index(min(losses))


def _set_random_states(generator: torch.Generator, tensors: dict[str, Tensor]) -> None:
    generator.set_state(tensors["random.run"])
    torch.default_generator.set_state(tensors["random.cpu"])
    for name, state in tensors.items():
        if name.startswith("random.cuda."):
            torch.cuda.set_rng_state(state, int(name.removeprefix("random.cuda.")))
