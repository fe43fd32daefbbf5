"""Modules that map x to the mean and log-variance of q(z|x), and methods seen as modules."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["DecodeMethod", "EncodeMethod", "GaussianEncoder", "require_module"]


class GaussianEncoder(nn.Module):
    """A mean and a log-variance network, on a trunk that both may share.

    Args:
        mean: maps the trunk's output to [n, d].
        logvar: maps it to [n, d], or is itself a [d] tensor: σ independent of x.
        trunk: maps [n, *event] to what the two heads take; the identity by default.
    """

    def __init__(
        self, mean: nn.Module, logvar: nn.Module | Tensor, trunk: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.trunk = nn.Identity() if trunk is None else require_module(trunk, "trunk")
        self.mean = require_module(mean, "encoder_mean")
        self.logvar: nn.Module | Tensor
        if not isinstance(logvar, Tensor):
            self.logvar = require_module(logvar, "encoder_logvar")
        elif isinstance(logvar, nn.Parameter):
            self.logvar = _latent_vector(logvar)
        else:
            self.register_buffer("logvar", _latent_vector(logvar))

    @property
    def fixed_std(self) -> bool:
        return isinstance(self.logvar, Tensor)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.trunk(x)
        mean = self.mean(hidden)
        if not isinstance(self.logvar, Tensor):
            return mean, self.logvar(hidden)
        if isinstance(mean, Tensor) and mean.shape[-1:] != self.logvar.shape:
            raise ValueError(
                f"encoder_logvar must be [d] = [{mean.shape[-1]}] like encoder_mean's output, "
                f"got {list(self.logvar.shape)}"
            )
        return mean, self.logvar.expand_as(mean)


class EncodeMethod(nn.Module):
    """The ``encode`` method of another module, as a module."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module: Any = module

    def forward(self, x: Tensor) -> Any:
        return self.module.encode(x)


class DecodeMethod(nn.Module):
    """The ``decode`` method of another module, as a module."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module: Any = module

    def forward(self, z: Tensor) -> Any:
        return self.module.decode(z)


def require_module(value: object, name: str) -> nn.Module:
    """``value``, if it is a module; the error says what ``name`` takes."""
    if not isinstance(value, nn.Module):
        way_out = " or a [d] tensor" if name == "encoder_logvar" else ""
        raise TypeError(f"{name} must be an nn.Module{way_out}, got {type(value).__name__}")
    return value


def _latent_vector(logvar: Tensor) -> Tensor:
    if not logvar.is_floating_point():
        raise TypeError(f"encoder_logvar must be a floating tensor [d], got {logvar.dtype}")
    if logvar.ndim != 1:
        raise ValueError(f"encoder_logvar must be a [d] tensor, got {list(logvar.shape)}")
    if not bool(torch.isfinite(logvar).all()):
        raise ValueError("encoder_logvar must be finite; it is log σ², so σ = 0 has none")
    return logvar
