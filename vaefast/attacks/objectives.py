"""What ``latent`` maximises: a change of the posterior, or of the class read off it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from vaefast.attacks.ball import working
from vaefast.attacks.divergences import Divergence
from vaefast.attacks.search import Bound, Value
from vaefast.models.footprint import activation_bytes
from vaefast.models.paths import Paths
from vaefast.models.vae import VAE
from vaefast.runtime.batching import Rows

__all__ = ["Classifier", "LatentClassChange", "PosteriorChange"]

Classifier = Callable[[Tensor], Tensor]


class PosteriorChange:
    """D(q(z|x'), q(z|x)), or −D(q(z|x'), q(z|target)) where a target is given."""

    ops: tuple[str, ...] = ("net_forward", "net_vjp")
    width = 1

    def __init__(self, vae: VAE, x: Tensor, target: Tensor | None, divergence: Divergence) -> None:
        self.vae, self.divergence = vae, divergence
        self.modules: tuple[object, ...] = (vae,)
        self.paths = Paths.of(vae, working(x[:0]))
        self.generic = self.paths.encoder is None
        self.source = x if target is None else target
        self.sign = 1.0 if target is None else -1.0

    def bytes_per_row(self) -> int:
        return activation_bytes(self.vae.encode, working(self.source), self.vae)

    def bind(self, rows: Rows) -> tuple[Bound, Value]:
        source = working(self.source[rows])
        bound = Bound(self._value, (*self.paths.encode(source), _nan_unless_finite(source)))
        return bound, bound

    def _value(self, point: Tensor, *reference: Tensor) -> Tensor:
        restarts = len(point) // len(reference[0])
        mean, logvar, offset = (t.repeat_interleave(restarts, 0) for t in reference)
        return self.sign * self.divergence(*self.paths.encode(point), mean, logvar) + offset


class LatentClassChange:
    """Cross-entropy of h(μ(x')) against the class predicted at x; minus it, against a target.

    Args:
        target: inputs like x (their predicted class is the target), classes [B] int64, or None.
        classifier: h, from means [n, d] to logits [n, K]; a module, so rows stand in blocks.
    """

    generic = True
    ops: tuple[str, ...] = ()
    width = 1

    def __init__(self, vae: VAE, x: Tensor, target: Tensor | None, classifier: Classifier) -> None:
        self.vae, self.classifier = vae, classifier
        self.modules: tuple[object, ...] = (vae, classifier)
        self.x, self.target = x, target
        self.sign = 1.0 if target is None else -1.0

    def bytes_per_row(self) -> int:
        return activation_bytes(self._logits, working(self.x), self.vae)

    def bind(self, rows: Rows) -> tuple[Bound, Value]:
        bound = Bound(self._value, self._classes(rows))
        return bound, bound

    def _value(self, point: Tensor, classes: Tensor, offset: Tensor) -> Tensor:
        restarts = len(point) // len(classes)
        repeated = classes.repeat_interleave(restarts)
        loss = F.cross_entropy(self._logits(point), repeated, reduction="none")
        return self.sign * loss + offset.repeat_interleave(restarts)

    def _classes(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """The class of each input [b], and NaN where it is read off an input that is not finite."""
        if self.target is not None and not self.target.is_floating_point():
            classes = self.target[rows]
            self._check_range(classes, working(self.x[rows]))
            return classes, torch.zeros_like(classes, dtype=torch.float64)
        source = working((self.x if self.target is None else self.target)[rows])
        return self._logits(source).argmax(1), _nan_unless_finite(source)

    def _logits(self, point: Tensor) -> Tensor:
        logits = self.classifier(self.vae.encode(point)[0])
        if logits.ndim != 2 or len(logits) != len(point):
            raise ValueError(
                f"classifier must return logits [n, K] with n = {len(point)}, "
                f"got {list(logits.shape)}"
            )
        return logits.double()

    def _check_range(self, classes: Tensor, x: Tensor) -> None:
        classes_known = self._logits(x[:1]).shape[1]
        low, high = int(classes.min()), int(classes.max())
        if low < 0 or high >= classes_known:
            raise ValueError(
                f"target classes must lie in [0, {classes_known}), got {low} to {high}"
            )


def _nan_unless_finite(source: Tensor) -> Tensor:
    """[b] float64: 0, or NaN where the row holds NaN or infinity."""
    finite = source.flatten(1).isfinite().all(1)
    return torch.where(finite, 0.0, torch.nan).double()
