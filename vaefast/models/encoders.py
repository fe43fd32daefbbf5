"""Modules that map x to the mean and log-variance of q(z|x), and methods seen as modules.

Each takes a context beside x or z, hands it to whatever takes one, and names the functions that
might in ``functions()``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vaefast.models import results
from vaefast.models.context import Context, call

__all__ = [
    "DecodeMethod",
    "EncodeMethod",
    "GaussianEncoder",
    "HeadsEncoder",
    "functions_of",
    "require_module",
]


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

    def functions(self) -> list[Callable[..., Any]]:
        return [m for m in (self.trunk, self.mean, self.logvar) if isinstance(m, nn.Module)]

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        hidden = call(self.trunk, x, context)
        own = hidden if isinstance(self.logvar, Tensor) else hidden.clone()  # it may write in place
        mean = results.head(call(self.mean, own, context), "encoder_mean")
        if not isinstance(self.logvar, Tensor):
            scale = call(self.logvar, hidden, context)
            return mean, results.head(scale, "encoder_logvar", results.LOGVARS)
        if mean.shape[-1:] != self.logvar.shape:
            raise ValueError(
                f"encoder_logvar must be [d] = [{mean.shape[-1]}] like encoder_mean's output, "
                f"got {list(self.logvar.shape)}"
            )
        return mean, self.logvar.expand_as(mean)


class EncodeMethod(nn.Module):
    """What encodes in another module: its method ``name``, or the child of that name.

    Args:
        module: the other module.
        output: what its scale is: "logvar", "std", "var" or "logstd"; by default its name says.
        name: of the method or child.
    """

    def __init__(self, module: nn.Module, output: str | None = None, name: str = "encode") -> None:
        super().__init__()
        self.module: Any = module
        self.output, self.name = output, name

    def functions(self) -> list[Callable[..., Any]]:
        return [getattr(self.module, self.name)]

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        return results.moments(call(self.functions()[0], x, context), self.output)


class HeadsEncoder(nn.Module):
    """The encoder of a module that has its heads as children, and perhaps a trunk.

    Args:
        module: has the children ``mean`` and ``scale``; ``scale`` may be a number.
        mean, scale: their names.
        output: what the scale is, as for :class:`EncodeMethod`.
        trunk: name of the child that both heads follow.
    """

    def __init__(
        self, module: nn.Module, mean: str, scale: str, output: str, trunk: str | None = None
    ) -> None:
        super().__init__()
        self.module: Any = module
        self.names, self.output, self.trunk = (mean, scale), output, trunk

    def functions(self) -> list[Callable[..., Any]]:
        names = [name for name in (self.trunk, *self.names) if name is not None]
        return [f for f in (getattr(self.module, name) for name in names) if callable(f)]

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        if self.trunk is not None:
            x = call(getattr(self.module, self.trunk), x, context)
        mean, scale = (getattr(self.module, name) for name in self.names)
        mean = results.head(call(mean, x.clone(), context), self.names[0])  # it may write in place
        if callable(scale):
            scale = call(scale, x, context)
        else:
            scale = torch.as_tensor(scale, dtype=mean.dtype, device=mean.device).expand_as(mean)
        return results.moments((mean, scale), self.output)


class DecodeMethod(nn.Module):
    """What decodes in another module: its method ``name``, or the child of that name.

    Args:
        module: the other module.
        output: "probabilities" where these are to be read off a distribution, else logits are.
        pair: whether a second tensor is the log-variance of a Gaussian; both are returned then.
        name: of the method or child.
    """

    def __init__(
        self,
        module: nn.Module,
        output: str | None = None,
        pair: bool = False,
        name: str = "decode",
    ) -> None:
        super().__init__()
        self.module: Any = module
        self.output, self.pair, self.name = output, pair, name

    def functions(self) -> list[Callable[..., Any]]:
        return [getattr(self.module, self.name)]

    def forward(self, z: Tensor, context: Context = None) -> Any:
        return results.image(call(self.functions()[0], z, context), self.output, pair=self.pair)


def functions_of(module: nn.Module) -> list[Callable[..., Any]]:
    """The functions that a context could be handed to when the module is called."""
    functions = getattr(module, "functions", None)
    return functions() if callable(functions) else [module]


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
