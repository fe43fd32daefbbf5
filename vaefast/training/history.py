"""What a run of the training did, and the bar that shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

__all__ = ["History", "Show", "bar"]


@dataclass(frozen=True)
class History:
    """What a run of :func:`~vaefast.training.fit` did, one entry per epoch.

    Args:
        loss: mean objective over the training rows, nats per input, lower is better.
        validation: the same over the validation rows, in eval mode; empty without them.
        lr: the learning rate that the epoch was trained with.
        terms: mean over the training rows of each term that the objective names.
        resumed: steps that were done before this call, by the run whose checkpoint it went on
            from; 0 for a run from the start.
        best_epoch: the epoch, from 0, of the lowest validation loss, whose weights the model has
            where early stopping was asked for; None where it was not: those of the last epoch.
        stopped: whether ``patience`` epochs without a lower validation loss ended the run.
    """

    loss: list[float]
    validation: list[float]
    lr: list[float]
    terms: dict[str, list[float]] = field(default_factory=dict)
    resumed: int = field(default=0, compare=False)
    best_epoch: int | None = None
    stopped: bool = False


Show = Callable[[dict[str, float]], None]


@contextmanager
def bar(steps: int, done: int, progress: bool) -> Iterator[Show]:
    """Shows means of the epoch's terms so far, a step at a time.

    Silent without tqdm and where no terminal looks on.
    """
    try:
        from tqdm import tqdm
    except ImportError:
        yield lambda terms: None
        return
    silent = None if progress else True
    with tqdm(total=steps, initial=done, desc="train", unit="step", disable=silent) as shown:

        def show(terms: dict[str, float]) -> None:
            if not shown.disable:
                values = {name: f"{value:.2f}" for name, value in terms.items()}
                shown.set_postfix(values, refresh=False)
            shown.update()

        yield show
