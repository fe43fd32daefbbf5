"""What ``latent`` maximises: a change of the posterior, or of the class read off it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vaefast.attacks.divergences import Sloped
from vaefast.attacks.search import Bound, ClosedForm, Value
from vaefast.functional.rows import finite, repeated
from vaefast.models.footprint import activation_bytes
from vaefast.models.maps import Maps
from vaefast.models.prepare import Prepared

__all__ = ["Classifier", "LatentClassChange", "PosteriorChange"]

Classifier = Callable[[Tensor], Tensor]


class PosteriorChange:
    """D(q(z|x'), q(z|x)), or −D(q(z|x'), q(z|target)) where a target is given.

    Args:
        prepared: the inputs.
        target: [B, *event] in their dtype, or None.
        divergence: D, with its derivatives.
    """

    ops: tuple[str, ...] = ("net_forward", "net_vjp")
    width = 1

    def __init__(self, prepared: Prepared, target: Tensor | None, divergence: Sloped) -> None:
        self.prepared, self.target, self.divergence = prepared, target, divergence
        self.modules: tuple[object, ...] = (prepared.vae,)
        self.generic = prepared.maps.generic("encoder")

    def bytes_per_row(self) -> int:
        return self.prepared.maps.mean.bytes_per_row(self.prepared.itemsize)

    def bind(self, part: Prepared) -> tuple[Bound, Value]:
        source = part.x if self.target is None else self.target[part.gather]
        value = _Change(part.maps, self.divergence, 1.0 if self.target is None else -1.0)
        reference = [t.double() for t in part.maps.encode(source)]
        bound = Bound(value, (*reference, _nan_unless_finite(source)))
        return bound, bound


@dataclass(frozen=True)
class _Change(ClosedForm):
    """The change of the posterior; its constants: mean and log-variance [b, d], offset [b]."""

    maps: Maps
    divergence: Sloped
    sign: float

    def outputs(self, point: Tensor, *constants: Tensor) -> tuple[Tensor, ...]:
        """Mean and log-variance [n, d] each."""
        return self.maps.encode(point)

    def sloped(
        self, outputs: tuple[Tensor, ...], *constants: Tensor
    ) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        restarts = len(outputs[0]) // len(constants[0])
        mean, logvar, offset = (repeated(t, restarts) for t in constants)
        change, *slopes = self.divergence(outputs[0], outputs[1], mean, logvar)
        if self.sign > 0:
            return change + offset, tuple(slopes)
        return offset - change, tuple([None if slope is None else -slope for slope in slopes])


class LatentClassChange:
    """max_{k≠c} h_k(μ(x')) − h_c(μ(x')) for the class c predicted at x; minus it, for a target c.

    A difference of logits, for the cross-entropy has no gradient where logits are large.

    Args:
        prepared: the inputs.
        target: [B, *event] in their dtype (their predicted class is the target), classes [B]
            int64, or None. Classes are labels where the classifier has ``classes``, the label of
            each logit [K], and columns of the logits elsewhere.
        classifier: h, from means [n, d] to logits [n, K]; evaluated as a module.
    """

    generic = True
    ops: tuple[str, ...] = ()
    width = 1

    def __init__(self, prepared: Prepared, target: Tensor | None, classifier: Classifier) -> None:
        self.prepared, self.target, self.classifier = prepared, target, classifier
        self.modules: tuple[object, ...] = (prepared.vae, classifier)

    def bytes_per_row(self) -> int:
        logits = _Logits(self.prepared.at(slice(0, 1)).maps, self.classifier)
        return activation_bytes(logits, self.prepared.x, self.prepared.vae)

    def bind(self, part: Prepared) -> tuple[Bound, Value]:
        logits = _Logits(part.maps, self.classifier)
        value = _LogitDifference(logits, 1.0 if self.target is None else -1.0)
        bound = Bound(value, self._classes(part, logits))
        return bound, bound

    def _classes(self, part: Prepared, logits: _Logits) -> tuple[Tensor, Tensor]:
        """The class of each input [b], and NaN where it is read off an input that is not finite."""
        source = part.x if self.target is None else self.target[part.gather]
        if not source.is_floating_point():
            return self._columns(source, part), torch.zeros_like(source, dtype=torch.float64)
        return logits(source).argmax(1), _nan_unless_finite(source)

    def _columns(self, target: Tensor, part: Prepared) -> Tensor:
        """The column of the logits that each target class [b] means."""
        labels = getattr(self.classifier, "classes", None)
        first = part.at(slice(0, 1))
        known = _Logits(first.maps, self.classifier)(first.x).shape[1]
        if not isinstance(labels, Tensor) or list(labels.shape) != [known]:
            return self._checked_columns(target, known)
        same = target[:, None] == labels.to(target.device)
        if not same.any(1).all():
            missing = int(target[~same.any(1)][0])
            shown = ", ".join(map(str, labels.tolist()[:20])) + (", ..." if known > 20 else "")
            raise ValueError(f"target must hold labels of the classifier, {shown}; got {missing}")
        return same.long().argmax(1)

    @staticmethod
    def _checked_columns(target: Tensor, known: int) -> Tensor:
        low, high = int(target.min()), int(target.max())
        if low < 0 or high >= known:
            raise ValueError(f"target classes must lie in [0, {known}), got {low} to {high}")
        return target


@dataclass(frozen=True)
class _Logits:
    """x ↦ h(μ(x)) at some inputs, float64."""

    maps: Maps
    classifier: Classifier

    def __call__(self, point: Tensor) -> Tensor:
        logits = self.classifier(self.maps.encode_by_module(point)[0])
        if logits.ndim != 2 or len(logits) != len(point):
            raise ValueError(
                f"classifier must return logits [n, K] with n = {len(point)}, "
                f"got {list(logits.shape)}"
            )
        if logits.shape[1] < 2:
            raise ValueError(
                "classifier must return logits of at least 2 classes, got [n, 1]; return one for "
                "each of the two, such as [0, s]"
            )
        return logits.double()


@dataclass(frozen=True)
class _LogitDifference:
    """How far the strongest other class lies above each input's own, times the sign."""

    logits: _Logits
    sign: float

    def __call__(self, point: Tensor, classes: Tensor, offset: Tensor) -> Tensor:
        restarts = len(point) // len(classes)
        own = classes.repeat_interleave(restarts)[:, None]
        logits = self.logits(point)
        others = logits.scatter(1, own, -torch.inf).amax(1)
        difference = others - logits.gather(1, own)[:, 0]
        return self.sign * difference + offset.repeat_interleave(restarts)


def _nan_unless_finite(source: Tensor) -> Tensor:
    """[b] float64: 0, or NaN where the row holds NaN or infinity."""
    flags = finite(source)
    return torch.where(flags, 0.0, torch.nan).double()
