"""A linear classifier on the latent mean, and the accuracy that an attack leaves it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vaefast import checks, philox
from vaefast.models import VAE
from vaefast.models.context import Context
from vaefast.models.prepare import Prepared, prepare
from vaefast.philox import Use
from vaefast.runtime import openmp
from vaefast.runtime.grad_mode import without_autocast, without_grad

__all__ = ["AdversarialAccuracy", "LatentClassifier", "adversarial_accuracy"]

PATIENCE, FACTOR = 3, 0.5  # of the learning rate's plateau, on the validation loss
EARLY_STOP = 20  # epochs without a better validation accuracy
ORDER_LANE, SPLIT_LANE = 1, 2  # lanes of Use.POSTERIOR: order of the rows, which are held out


@dataclass(frozen=True)
class LatentClassifier:
    """One linear layer on the latent mean, h(μ) = Wμ + b.

    Attributes:
        weight: [K, d], one row per class.
        bias: [K].
        classes: [K] int64, the label of each row of ``weight``, ascending.
        validation_accuracy: share of right predictions on the rows held out in ``fit``.
    """

    weight: Tensor
    bias: Tensor
    classes: Tensor
    validation_accuracy: float

    @classmethod
    @without_grad
    def fit(
        cls,
        vae: VAE,
        x: Tensor,
        y: Tensor,
        *,
        seed: int = 0,
        epochs: int = 500,
        lr: float = 1.0,
        batch_size: int = 128,
        validation: float = 0.1,
        context: Context = None,
    ) -> LatentClassifier:
        """Fit by stochastic gradient descent on the cross-entropy of h(μ(x)), from zero weights.

        The learning rate is halved after 3 epochs without a lower validation loss; training stops
        after 20 epochs without a better validation accuracy and keeps the best weights. The order
        of the rows comes from ``seed`` alone; the VAE and the global generator are untouched.

        Args:
            vae: the VAE whose encoder mean is classified.
            x: [n, *event] images, float.
            y: [n] integer labels, at least two different ones.
            seed: orders the rows and chooses the validation rows.
            epochs: at most this many passes.
            lr: first learning rate.
            batch_size: rows per step.
            validation: share of the rows held out, in (0, 1).
            context: conditions of each image, [n, ...] or a dict of such tensors.

        Raises:
            ValueError: shapes disagree, fewer than two classes, an x whose mean is not finite.
            TypeError: ``vae`` is no VAE, ``y`` is not an integer tensor.
            RuntimeError: the model is in training mode.

        Source: Kuzina, Welling, Tomczak, "Alleviating adversarial attacks on variational
        autoencoders with MCMC", NeurIPS 2022, its evaluation code; there the weights start at
        random and the data loader's split is held out.
        """
        prepared = prepare(vae, x, context=context)
        labels = _labels(y, len(x))
        if not 0 < checks.number(validation, "validation") < 1:
            raise ValueError(f"validation must lie in (0, 1), got {validation:g}")
        seed = philox.check_seed(seed)
        checks.count(epochs, "epochs")
        checks.count(batch_size, "batch_size")
        classes, target = torch.unique(labels.to(x.device), return_inverse=True)
        if len(classes) < 2:
            raise ValueError(f"y must hold at least 2 classes, got {classes.tolist()}")
        mean = _means(prepared)
        data = _split(mean, target, validation, seed)
        weight, bias, accuracy = _descend(data, seed, epochs, lr, batch_size)
        return cls(weight, bias, classes, accuracy)

    @without_autocast
    def logits(self, mean: Tensor) -> Tensor:
        """Class scores Wμ + b, [..., d] -> [..., K], differentiable; column k is ``classes[k]``."""
        if mean.shape[-1] != self.weight.shape[1]:
            raise ValueError(
                f"mean must be [..., d] with d = {self.weight.shape[1]}, got {list(mean.shape)}"
            )
        return F.linear(mean, self.weight.to(mean), self.bias.to(mean))

    __call__ = logits

    def predict(self, mean: Tensor) -> Tensor:
        """The label with the largest score, [..., d] -> [...] int64; -1 where not finite."""
        with torch.no_grad():
            scores = self.logits(mean)
        label = self.classes.to(scores.device)[scores.argmax(-1)]
        return torch.where(torch.isfinite(scores).all(-1), label, -1)


@dataclass(frozen=True)
class AdversarialAccuracy:
    """How often the predicted class survives.

    Attributes:
        same_class: bool, shaped like the adversarial predictions, [B] or [B, C].
        failed: bool, like ``same_class``: a latent was not finite; such rows are in no share.
        accuracy: share of the rows that did not fail whose class stayed, NaN if all failed.
    """

    same_class: Tensor
    failed: Tensor
    accuracy: float


def adversarial_accuracy(
    classifier: LatentClassifier, mean: Tensor, z_adv: Tensor
) -> AdversarialAccuracy:
    """Share of adversarial inputs predicted as the class PREDICTED for their reference.

        accuracy = mean_i [ argmax h(z_adv,i) = argmax h(μ(x_i)) ],  not compared with labels

    Args:
        classifier: a :class:`LatentClassifier`.
        mean: [B, d] posterior means μ(x) of the references.
        z_adv: [B, d] or [B, C, d]: μ(x_adv) without a defence, the last states of the chains with.

    Raises:
        ValueError: ``z_adv`` does not have the rows of ``mean``.

    Source: Kuzina, Welling, Tomczak 2022, evaluation code.
    """
    if z_adv.ndim not in (2, 3) or z_adv.shape[0] != mean.shape[0]:
        raise ValueError(
            f"z_adv must be [B, d] or [B, C, d] with B = {len(mean)}, got {list(z_adv.shape)}"
        )
    if z_adv.ndim == 3:
        mean = mean[:, None]  # [B, 1, d], one reference for all chains
    failed = ~(torch.isfinite(mean).all(-1) & torch.isfinite(z_adv).all(-1))
    same = (classifier.predict(mean) == classifier.predict(z_adv)) & ~failed
    return AdversarialAccuracy(same, failed, float(same[~failed].double().mean()))


class _Data(NamedTuple):
    """Means with a 1 behind them, which the bias multiplies."""

    train: Tensor  # [n, d + 1]
    train_target: Tensor  # [K, n], one-hot in each column
    held: Tensor  # [m, d + 1]
    held_target: Tensor  # [m] int64 in [0, K)


def _labels(y: Tensor, rows: int) -> Tensor:
    if not isinstance(y, Tensor) or y.is_floating_point() or y.is_complex():
        got, way_out = type(y).__name__, "torch.as_tensor(y)"
        if isinstance(y, Tensor):
            got, way_out = checks.short(y.dtype), "y.long()"
            broken = y.flatten() != (y.flatten().floor() if y.is_floating_point() else y.flatten())
            if bool(broken.any()):
                row = int(broken.nonzero()[0, 0])
                got, way_out = f"{y.flatten()[row].item():g} in row {row}", "classes as 0, 1, ..."
        raise TypeError(f"y must be an integer tensor [n], got {got}; pass {way_out}")
    return checks.shape(y, "y", [rows], "the rows of x").long()


def _means(prepared: Prepared) -> Tensor:
    """Posterior means [n, d] in single or double precision."""
    maps = prepared.maps
    (mean,) = prepared.rows(
        lambda part: part.maps.encode(part.x)[:1],
        maps.mean.bytes_per_row(prepared.itemsize),
        generic=maps.generic("encoder"),
    )
    mean = mean if mean.dtype == torch.float64 else mean.float()
    bad = (~torch.isfinite(mean).all(1)).nonzero()
    if len(bad):
        raise ValueError(f"x must give finite means, row {int(bad[0])} does not; drop such rows")
    return mean


def _orders(rows: int, seed: int, lane: int, device: torch.device) -> Iterator[Tensor]:
    """Permutations of the rows without end, the nth from (seed, lane, n) alone."""
    index = torch.arange(rows, device=device)
    for step in count():
        keys = philox.integers(4, seed=seed, index=index, step=step, lane=lane, use=Use.POSTERIOR)
        yield from torch.argsort(keys.T.contiguous(), stable=True)


def _split(mean: Tensor, target: Tensor, validation: float, seed: int) -> _Data:
    order = next(_orders(len(mean), seed, SPLIT_LANE, mean.device))
    held = min(max(1, round(validation * len(mean))), len(mean) - 1)
    keep, out = order[held:], order[:held]
    one_hot = F.one_hot(target).to(mean).T.contiguous()  # every class is among the rows
    mean = F.pad(mean, (0, 1), value=1.0)
    return _Data(mean[keep], one_hot[:, keep], mean[out], target[out])


def _descend(
    data: _Data, seed: int, epochs: int, lr: float, batch_size: int
) -> tuple[Tensor, Tensor, float]:
    """Weights, bias and accuracy at the best epoch on the held-out rows."""
    weight = data.train.new_zeros(len(data.train_target), data.train.shape[1])  # the bias is last
    optimiser = torch.optim.SGD([weight], lr=lr)  # holds the learning rate that the plateau lowers
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimiser, patience=PATIENCE, factor=FACTOR
    )
    best, best_accuracy, best_epoch = weight.clone(), -1.0, 0
    orders = _orders(len(data.train), seed, ORDER_LANE, weight.device)
    for epoch, order in enumerate(islice(orders, epochs), 1):
        with openmp.at_most(1):  # a step's operations are shorter than waking a second thread
            _one_epoch(data, order, batch_size, weight, optimiser.param_groups[0]["lr"])
        loss, accuracy = _validate(data, weight)
        plateau.step(loss)
        if accuracy > best_accuracy:
            best, best_accuracy, best_epoch = weight.clone(), accuracy, epoch
        elif epoch - best_epoch >= EARLY_STOP:
            break
    return best[:, :-1].contiguous(), best[:, -1].contiguous(), best_accuracy


def _one_epoch(data: _Data, order: Tensor, batch_size: int, weight: Tensor, lr: float) -> None:
    """Steps down the cross-entropy, whose slope by the scores is softmax − one-hot.

    Classes run down and rows across, which lets the softmax take many rows at once.
    """
    means = data.train[order].split(batch_size)
    targets = data.train_target[:, order].split(batch_size, dim=1)
    for mean, target in zip(means, targets, strict=True):
        slope = torch.mm(weight, mean.T).softmax(0).sub_(target)
        weight.addmm_(slope, mean, alpha=-lr / len(mean))


def _validate(data: _Data, weight: Tensor) -> tuple[float, float]:
    scores = F.linear(data.held, weight)
    right = (scores.argmax(1) == data.held_target).double().mean()
    return float(F.cross_entropy(scores, data.held_target)), float(right)
