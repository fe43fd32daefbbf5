"""Lipschitz constants of a VAE's maps, computed from the weights that they have."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from vaefast.functional.slopes import largest_slope
from vaefast.models import lowering
from vaefast.models.encoders import GaussianEncoder
from vaefast.models.lipschitz.layers import BallOfStd, LogVariance
from vaefast.models.lipschitz.norms import UP, layer_bound
from vaefast.models.plans import CannotLower
from vaefast.models.vae import VAE
from vaefast.runtime.grad_mode import without_grad
from vaefast.types import Network

__all__ = ["Constants", "Maps", "lipschitz_constants", "lipschitz_maps", "network_constant"]

NO_CONSTANT = (
    "σ = exp(½·log σ²) has no Lipschitz constant; take a σ head that has one, as "
    "vf.models.LipschitzVAE does, or a fixed σ"
)


class Constants(NamedTuple):
    """Lipschitz constants of a VAE's maps in the ℓ2 norm, and how wide its posterior may be.

    Args:
        a: of the decoder g, latents to pixels, its final sigmoid included.
        b: of the encoder's mean μ.
        c: of the encoder's standard deviation σ; 0 where σ depends on no x.
        std_norm: an upper bound of ‖σ(x)‖₂ for all x; infinite where there is none.
    """

    a: float
    b: float
    c: float
    std_norm: float = math.inf


class Maps(NamedTuple):
    """The maps of a VAE as networks, by which their constants are computed.

    Args:
        mean: x ↦ μ(x).
        pixels: z ↦ g(z).
        std: x ↦ σ(x) before it is projected; None where σ depends on no x.
        ball: radius of the ball that σ is projected onto; infinite where it is not.
    """

    mean: Network
    pixels: Network
    std: Network | None
    ball: float


@without_grad
def lipschitz_constants(vae: VAE, x: Tensor) -> Constants:
    """Upper bounds of the Lipschitz constants of g, μ and σ, from spectral norms of the weights.

        constant = Π over layers of (slope of the activation)·‖layer‖₂,  plus what residual sums add

    The norms are computed upper bounds in float64, rounding included, of convolutions with their
    padding (:mod:`vaefast.models.lipschitz.norms`); they hold for the networks that the weights
    define in exact arithmetic. Of any VAE whose maps lower (``vf.explain``); a σ head that is the
    exponential of log σ² has no constant.

    Equivalent to, for linear layers, but for the bounds' excess of some 1e-9 a layer::

        math.prod(float(torch.linalg.matrix_norm(w.double(), 2)) for w in weights)

    Args:
        vae: in evaluation mode. Of a trained :class:`LipschitzVAE` pass its ``export()``.
        x: [n, *event], n ≥ 1, an input by which the modules are recognised.

    Returns:
        :class:`Constants`.

    Raises:
        ValueError: a map that is no network of known layers or has no constant, or weights that are
            not finite.

    Source: mathematics.md 4.
    """
    return constants_of(lipschitz_maps(vae, x), vae)


def constants_of(maps: Maps, vae: VAE) -> Constants:
    """The constants of maps that were found in the VAE."""
    a, b = network_constant(maps.pixels), network_constant(maps.mean)
    if maps.std is not None:
        return Constants(a, b, network_constant(maps.std), maps.ball)
    std = torch.exp(0.5 * cast(Tensor, vae.encoder.logvar).detach().double())
    return Constants(a, b, 0.0, float(torch.linalg.vector_norm(std)) * UP)


def lipschitz_maps(vae: VAE, x: Tensor) -> Maps:
    """Recognise the maps of the VAE; raises as :func:`lipschitz_constants`."""
    found = lowering.encoder(vae, x)
    if found.mean is None:
        raise ValueError(f"the encoder's mean has no computed constant: {found.why_not}")
    latents = x.new_zeros(1, found.mean.out_features)
    pixels = _lowered("decoder", lambda: lowering.pixels(vae, latents))
    if vae.fixed_std:
        return Maps(found.mean, pixels, None, math.inf)
    layers, ball = _before_ball(vae)
    if layers is not None:
        std = _lowered("σ head", lambda: lowering.lower(layers, x))
        return Maps(found.mean, pixels, std, ball)
    if found.std is None:
        raise ValueError(NO_CONSTANT if found.logvar is not None else _no_head(found.why_not))
    return Maps(found.mean, pixels, found.std, math.inf)


def network_constant(net: Network) -> float:
    """At least the Lipschitz constant of a network in the ℓ2 norm.

    Raises:
        ValueError: it has none, or its weights are not finite.
    """
    known = {-1: 1.0}
    for index, layer in enumerate(net.parsed()):
        bound = layer_bound(layer, net.weights[index]) * known[index - 1]
        if layer.residual is not None:
            bound += known[layer.residual]
        known[index] = largest_slope(layer.activation) * bound * UP
    constant = known[len(net.layers) - 1]
    if not math.isfinite(constant):
        raise ValueError(
            "a Lipschitz constant is not finite: a weight is not, or an activation is an "
            f"exponential ({', '.join(dict.fromkeys(net.activations))})"
        )
    return constant


def _before_ball(vae: VAE) -> tuple[nn.Module | None, float]:
    """x ↦ σ(x) before its projection, and the radius of that; None where there is none."""
    encoder = vae.encoder
    head = encoder.logvar if isinstance(encoder, GaussianEncoder) else None
    if not isinstance(head, nn.Sequential) or len(head) < 3:
        return None, math.inf
    *layers, ball, last = head.children()
    if not (isinstance(ball, BallOfStd) and isinstance(last, LogVariance)):
        return None, math.inf
    return nn.Sequential(cast(nn.Module, encoder.trunk), *layers), float(ball.radius)


def _lowered(part: str, lower: Callable[[], Network]) -> Network:
    try:
        return lower()
    except CannotLower as error:
        raise ValueError(f"the {part} has no computed constant: {error.reason}") from None


def _no_head(why_not: str) -> str:
    return f"the σ head has no computed constant: {why_not}"
