"""What a ball of inputs does to q(z|x) and a box of latents to the decoder: for support sets."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

import vaefast as vf
from vaefast.certify.heads import heads
from vaefast.functional.activations import parse
from vaefast.functional.displacement import Displacement
from vaefast.functional.secants import curve
from vaefast.models.prepare import prepare
from vaefast.types import Network

__all__ = ["Encoder", "interval"]


def interval(net: Network, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The range of an MLP's outputs [m] over the box [low, high], layer by layer.

    Raises:
        ValueError: a layer that is not linear, or an activation that is not increasing.
    """
    for layer, weight, bias in zip(net.parsed(), net.weights, net.biases, strict=True):
        if layer.kind != "linear" or layer.residual is not None:
            raise ValueError(f"intervals here take linear layers, got {layer}")
        middle, half = 0.5 * (low + high) @ weight.mT, 0.5 * (high - low) @ weight.mT.abs()
        middle = middle if bias is None else middle + bias
        low, high = _increasing(layer.activation, middle - half, middle + half)
    return low, high


def _increasing(activation: str, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    phi = curve(activation)
    if phi is None:
        return low, high
    if phi.pairs or phi.least < 0:
        raise ValueError(f"intervals here take increasing activations, got {activation!r}")
    (known,) = parse([activation])
    return known.value(low), known.value(high)


class Reach(NamedTuple):
    """Where the ball takes q(z|x), whitened at x.

    Args:
        ellipsoid: Q [d, d] with m mᵀ ≼ Q for every m = (μ' − μ)/σ.
        shift: of ‖m‖₂.
        scale: of ‖log σ' − log σ‖₂.
    """

    ellipsoid: Tensor
    shift: float
    scale: float


class Encoder:
    """Bounds of the encoder at one input, float64, and the decoder's network.

    Raises:
        ValueError: maps that do not lower.
    """

    def __init__(self, vae: vf.VAE, x: Tensor) -> None:
        part = prepare(vae, x)
        mean, std = (t[0].detach().double() for t in vae.posterior(x))
        self.x, self.mean, self.std = x.flatten(1).double(), mean, std
        self.heads = heads(part.maps)
        self.nets = [Displacement(self.x, h.net, h.scale(std[None]), h.groups) for h in self.heads]
        self.single = [
            Displacement(self.x, h.net, h.scale(std[None]), h.groups * len(std)) for h in self.heads
        ]
        pixels = part.maps.pixels.lowered
        if pixels is None:
            raise ValueError(f"the decoder does not lower: {part.maps.pixels.why_not}")
        wide = [w.detach().double() for w in pixels.weights]
        biases = [None if b is None else b.detach().double() for b in pixels.biases]
        self.decoder = Network(wide, biases, pixels.layers)
        self.centre = interval(self.decoder, mean, mean)[0]

    def reach(self, radius: float) -> Reach:
        """All x' of the ball of this radius."""
        ball, scale, Q = torch.tensor([radius], dtype=torch.float64, device="cpu"), 0.0, None
        for head, net in zip(self.heads, self.nets, strict=True):
            bounds = net.bound(ball)[0].tolist()
            if head.mean:
                shift, Q = bounds.pop(0), net.ellipsoid(ball)[0, 0]
            scale = bounds.pop(0) if head.factor else scale
        return Reach(Q, shift, scale)

    def ranges(self, radius: float, tight: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Ends of each mean, and the largest σ: by plain intervals, or by vaefast's bounds too."""
        low, high, top = self.mean, self.mean, self.std
        ball = torch.tensor([radius], dtype=torch.float64, device="cpu")
        for head, single in zip(self.heads, self.single, strict=True):
            ends = self._plain(head.net, radius)
            at = single.walk.tape.post[-1][0]
            spread = single.bound(ball)[0] / single.scale[0]
            if tight:
                ends = torch.maximum(ends[0], at - spread), torch.minimum(ends[1], at + spread)
            if head.mean:
                low, high = (end[: len(self.mean)] for end in ends)
            if head.factor:
                rise = (ends[1] - at)[-len(self.mean) :].clamp(min=0.0)
                top = self.std * (head.factor * rise).exp()
        return low, high, top

    def _plain(self, net: Network, radius: float) -> tuple[Tensor, Tensor]:
        """The first layer over the ball, the others over boxes."""
        layer, weight, bias = net.parsed()[0], net.weights[0].double(), net.biases[0]
        middle = self.x[0] @ weight.mT + (0.0 if bias is None else bias.double())
        half = radius * weight.norm(dim=1)
        ends = _increasing(layer.activation, middle - half, middle + half)
        wide = [w.double() for w in net.weights[1:]]
        biases = [None if b is None else b.double() for b in net.biases[1:]]
        return interval(Network(wide, biases, net.layers[1:]), *ends)
