"""The activations that a network can carry: their modules, by their names in its layers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["MaxMin", "activation_module"]


class MaxMin(nn.Module):
    """GroupSort with groups of two: each adjacent pair (a₂ᵢ, a₂ᵢ₊₁) becomes (max, min).

    It permutes its input, so it is 1-Lipschitz in every norm and keeps the gradient's norm.

    Equivalent to: ``a.unflatten(-1, (-1, 2)).sort(dim=-1, descending=True).values.flatten(-2)``

    Source: Anil, Lucas, Grosse, "Sorting out Lipschitz function approximation", ICML 2019.
    """

    def forward(self, a: Tensor) -> Tensor:
        if a.shape[-1] % 2:
            raise ValueError(
                f"MaxMin pairs its features: [..., H] with H even, got {list(a.shape)}"
            )
        first, second = a.unflatten(-1, (-1, 2)).unbind(-1)
        pairs = torch.stack((torch.maximum(first, second), torch.minimum(first, second)), dim=-1)
        return pairs.flatten(-2)


_MODULES: dict[str, Callable[[], nn.Module]] = {
    "identity": nn.Identity,
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU(approximate="tanh"),
    "maxmin": MaxMin,
}
_PARAMETRIC: dict[str, Callable[..., nn.Module]] = {
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
}


def activation_module(name: str) -> nn.Module:
    """The module of one name, as in ``"tanh"`` or ``"leaky_relu:0.2"``; torch's default without.

    Raises:
        ValueError: an unknown name, or a parameter that is malformed or not taken.
    """
    kind, colon, parameter = str(name).partition(":")
    if name in _MODULES:
        return _MODULES[name]()
    if kind in _PARAMETRIC:
        try:
            return _PARAMETRIC[kind](float(parameter)) if colon else _PARAMETRIC[kind]()
        except ValueError:
            raise ValueError(f"activation must be {kind}:<number>, got {name!r}") from None
    allowed = ", ".join([*_MODULES, "leaky_relu:<slope>", "elu:<alpha>"])
    raise ValueError(f"activation must be one of {allowed}; got {name!r}")
