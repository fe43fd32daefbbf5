"""A support-set bound in the manner of CIVET: a latent set that keeps most of the posterior's mass.

For all x' of the ball B(x, R) a fixed set S of latents has N(μ(x'), σ(x')²)(S) > ½; a bound of
‖g(z) − g(μ(x))‖₂ over S that is at most r then certifies R, without a draw. Two kinds of set:

    box        [lo − ξ, hi + ξ] around intervals of μ(x'), the decoder by intervals, layer by
               layer: what the paper describes. Masses of the latents are equal, or chosen to make
               the bound small; the encoder's intervals are plain ones, or vaefast's bounds.
    ellipsoid  {μ + σ⊙V y/g : ‖y‖₂ ≤ c}, its axes along those of the decoder's Jacobian, the
               decoder by the affine and the multiplier form of
               ``vaefast.functional.displacement``: what an affine bound makes of the description.

Source: Xu, Banerjee, Vasisht, Singh, "Support is all you need for certified VAE training", ICLR
2025 (arXiv 2504.11831), which trains by this bound; ours is the bound alone, ℓ2 where theirs is ℓ∞.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from scipy import special
from torch import Tensor

from vaefast.bench.outside_encoder import Encoder, interval
from vaefast.bench.outside_mass import ellipsoid_mass, moved_mass, padding
from vaefast.certify.tolerance import scale_cost
from vaefast.functional import relaxations
from vaefast.functional.displacement import Displacement
from vaefast.functional.displacement_intervals import intervals
from vaefast.types import Network

__all__ = ["Box", "Ellipsoids", "Encoder", "largest"]

HALF = 0.5 * (1.0 + 1e-9)  # more than the majority
INFLATION = 1.0 + 1e-9  # of bounds by intervals, whose rounding is a thousandth of it
STEEPNESS = (0.25, 0.45, 0.8, 1.5, 3.0)  # κ: from the decoder's level sets to balls
SIZES = (1.0, 1.1, 1.2, 1.35, 1.5, 1.75, 2.1, 2.5, 3.0, 4.0)  # c over its least
STEPS, RATE = 150, 0.05  # of the masses
HALVINGS = 14


def largest(holds: Callable[[float], bool], high: float) -> float:
    """The largest radius of a bisection at which ``holds`` was true; 0 where it never was."""
    low = 0.0
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


class Box:
    """A box of latents, the product of its sides' masses just above ½, at one input.

    Args:
        encoder: the maps.
        best: masses chosen by gradient and vaefast's bounds of the encoder; else equal masses and
            plain intervals.
    """

    def __init__(self, encoder: Encoder, best: bool) -> None:
        self.encoder, self.best, self.bounds = encoder, best, 0
        share = torch.zeros_like(encoder.mean)
        self.masses = self._masses(self._chosen(share) if best else share)

    @property
    def starts(self) -> float:
        """The least r at which the majority at x itself is certified."""
        return self.distance(0.0)

    def radius(self, r: float, high: float) -> float:
        """The largest radius found whose box is within r."""
        if self.starts > r:
            return 0.0
        return largest(lambda ball: self.distance(ball) <= r, high)

    def distance(self, radius: float) -> float:
        """The most that ‖g(z) − g(μ(x))‖₂ is on the box that serves this ball."""
        self.bounds += 1
        low, high, std = self.encoder.ranges(radius, self.best)
        pad = padding(high - low, std, self.masses)
        return float(self._distance(low - pad, high + pad))

    def _distance(self, low: Tensor, high: Tensor) -> Tensor:
        ends = interval(self.encoder.decoder, low, high)
        centre = self.encoder.centre
        return INFLATION * torch.maximum(centre - ends[0], ends[1] - centre).norm()

    @staticmethod
    def _masses(share: Tensor) -> Tensor:
        """Of each side; log ½ is divided among them."""
        return (math.log(HALF) * share.softmax(0)).exp()

    def _chosen(self, share: Tensor) -> Tensor:
        """Descend on the bound at R = 0."""
        encoder = self.encoder
        share = share.clone().requires_grad_()
        steps, best = torch.optim.Adam([share], lr=RATE), (math.inf, share.detach().clone())
        for _ in range(STEPS):
            with torch.enable_grad():
                pad = encoder.std * torch.special.ndtri(0.5 + 0.5 * self._masses(share))
                bound = self._distance(encoder.mean - pad, encoder.mean + pad)
                steps.zero_grad()
                bound.backward()
            best = min(best, (bound.item(), share.detach().clone()), key=lambda pair: pair[0])
            steps.step()
        return best[1]


class Shape(NamedTuple):
    """Ellipsoids {μ + σ⊙V y/g : ‖y‖₂ ≤ c} and what was computed of them.

    Args:
        axes: V [d, d].
        steep: g [d].
        sizes: c, ascending, the first of mass ½.
        distances: the most that ‖g(z) − g(μ(x))‖₂ is on each.
    """

    axes: Tensor
    steep: np.ndarray
    sizes: list[float]
    distances: list[float]


class Ellipsoids:
    """Ellipsoids of latents at one input, of several shapes and sizes.

    Args:
        encoder: the maps.
        most: the largest r that is asked for; bounds end above it.
    """

    def __init__(self, encoder: Encoder, most: float) -> None:
        self.encoder, self.bounds = encoder, 0
        self.shapes = [self._measured(*shape, most) for shape in self._shapes()]

    @property
    def starts(self) -> float:
        """The least r at which the majority at x itself is certified."""
        return min(shape.distances[0] for shape in self.shapes)

    def radius(self, r: float, high: float) -> float:
        """The largest radius found at which a set within r keeps the majority."""
        kept = [_largest_within(shape, r) for shape in self.shapes]
        pairs = [(s, c) for s, c in zip(self.shapes, kept, strict=True) if c > 0]
        return largest(lambda ball: self._holds(pairs, ball), high) if pairs else 0.0

    def _holds(self, pairs: list[tuple[Shape, float]], radius: float) -> bool:
        """Whether some set has more mass at every x' than the change of scale may take off it."""
        reach = self.encoder.reach(radius)
        self.bounds += 1
        cost = float(scale_cost(torch.tensor([reach.scale], dtype=torch.float64, device="cpu")))
        needed = max(HALF, float(special.ndtr(cost)) + 1e-9)
        for shape, c in pairs:
            caps = ((shape.axes.mT @ reach.ellipsoid) * shape.axes.mT).sum(1).clamp(min=0.0).sqrt()
            if moved_mass(shape.steep**2, c**2, reach.shift, caps.numpy()) > needed:
                return True
        return False

    def _shapes(self) -> Iterator[tuple[Tensor, np.ndarray]]:
        net, mean, std = self.encoder.decoder, self.encoder.mean, self.encoder.std

        def pixels(w: Tensor) -> Tensor:
            return interval(net, mean + std * w, mean + std * w)[0]

        with torch.enable_grad():
            slopes = torch.autograd.functional.jacobian(pixels, torch.zeros_like(mean))
        _, size, axes = torch.linalg.svd(slopes, full_matrices=False)
        for kappa in STEEPNESS:
            steep = (size.square() + (kappa * size[0]) ** 2).sqrt()
            yield axes.mT, (steep / steep[0]).numpy()

    def _measured(self, axes: Tensor, steep: np.ndarray, most: float) -> Shape:
        net = self._composed(axes, torch.from_numpy(steep))
        bounds = Displacement(torch.zeros(1, len(steep), dtype=torch.float64, device="cpu"), net)
        least, sizes, distances = _half(steep), [], []
        for size in SIZES:
            sizes.append(size * least)
            distances.append(_distance(bounds, sizes[-1]))
            self.bounds += 1
            if distances[-1] > most:
                break
        return Shape(axes, steep, sizes, distances)

    def _composed(self, axes: Tensor, steep: Tensor) -> Network:
        """The decoder of y: its first layer takes μ + σ⊙V y/g."""
        net, encoder = self.encoder.decoder, self.encoder
        first = net.weights[0] @ (encoder.std[:, None] * axes / steep)
        bias = net.weights[0] @ encoder.mean + (0.0 if net.biases[0] is None else net.biases[0])
        return Network([first, *net.weights[1:]], [bias, *net.biases[1:]], net.layers)


def _distance(bounds: Displacement, size: float) -> float:
    """The smallest of the affine form, the multiplier form, and intervals of each pixel."""
    ball = torch.tensor([size], dtype=torch.float64, device="cpu")
    whole = float(bounds.bound(ball)[0, 0])
    walk, last = bounds.walk, len(bounds.walk.maps) - 1
    phi = walk.maps[last].curve
    if phi is None or phi.pairs:
        return whole
    low, high, relaxed = intervals(walk, slice(0, 1), ball).units(last)
    ends = relaxations.moves(phi, relaxed, walk.anchors(last, slice(0, 1)), low, high)
    return min(whole, INFLATION * float(torch.maximum(-ends[0], ends[1]).norm()))


def _half(steep: np.ndarray) -> float:
    """The least c at which the set has more than half of the mass at x, up to 1e-6 of it."""
    low, high = 0.0, float(np.sqrt(special.chdtri(len(steep), 0.4)) * steep.max())
    while high - low > 1e-6 * high:
        middle = 0.5 * (low + high)
        enough = ellipsoid_mass(steep**2, np.zeros_like(steep), middle**2) > HALF
        low, high = (low, middle) if enough else (middle, high)
    return high


def _largest_within(shape: Shape, r: float) -> float:
    """The largest c whose distances are within r, 0 where none is; each covers those before it."""
    within = [c for c, d in zip(shape.sizes, shape.distances, strict=True) if d <= r]
    return max(within, default=0.0)
