"""How steep the activations can be: a Lipschitz constant of each."""

from __future__ import annotations

import math

from vaefast.functional.activations import SELU_ALPHA, SELU_SCALE, named

__all__ = ["largest_slope"]

SLOPES = {  # rounded up where it is no simple number; the maximum lies at the place given
    "identity": 1.0,
    "relu": 1.0,
    "tanh": 1.0,
    "sigmoid": 0.25,
    "softplus": 1.0,
    "silu": 1.0998394,  # a = 2.3994
    "gelu": 1.1289043,  # a = √2
    "gelu_tanh": 1.1289931,  # a = 1.4185
    "exp_half": math.inf,
    "maxmin": 1.0,  # a permutation of its input
    "clamp": 1.0,
    "hardswish": 1.5,  # a = 3
    "mish": 1.0885,  # a = 1.4906
    "selu": SELU_SCALE * SELU_ALPHA,  # a = 0 from below
}


def largest_slope(activation: str) -> float:
    """The least Lipschitz constant of an activation such as ``"tanh"`` or ``"leaky_relu:0.2"``.

    In the ℓ2 norm of all its features; infinite where it has none.
    """
    name, (parameter, _) = named(activation)
    if name in ("leaky_relu", "elu"):
        return max(1.0, abs(parameter))
    return SLOPES[name]
