"""Input checks: each returns the checked value or raises one line that names the way out."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm

from vaefast.philox import MAX_INDEX

VARY_IN_TRAINING = (
    nn.modules.dropout._DropoutNd,
    nn.modules.batchnorm._BatchNorm,
    nn.RReLU,
    _SpectralNorm,
)

SLACK = 0.1  # how far a resize overshoots [0, 1]
RESCALE = "rescale it to [0, 1]"
FEW_LEVELS = 16  # largest value of a picture of 4 bits

T = TypeVar("T")


def batch(x: Tensor, name: str = "x") -> Tensor:
    """A floating tensor [B, *event] with at least one event dimension."""
    tensor(x, name)
    if not x.is_floating_point():
        remedy = f"{name}.real or {name}.abs()" if x.is_complex() else f"{name}.float()"
        raise TypeError(f"{name} must be floating, got {short(x.dtype)}; pass {remedy}")
    if x.layout != torch.strided:
        raise TypeError(f"{name} must be dense, got {short(x.layout)}; pass {name}.to_dense()")
    if x.ndim < 2:
        raise ValueError(
            f"{name} must be [B, *event], got {list(x.shape)}; add the batch with {name}[None]"
        )
    return x


def tensor(x: object, name: str) -> Tensor:
    if not isinstance(x, Tensor):
        remedy = f"; pass torch.as_tensor({name})" if hasattr(x, "__len__") else ""
        raise TypeError(f"{name} must be a torch.Tensor, got {type(x).__name__}{remedy}")
    return x


def shape(x: Tensor, name: str, expected: Iterable[int], like: str) -> Tensor:
    """``x`` has exactly the ``expected`` shape; ``like`` says where that shape comes from."""
    expected = list(expected)
    if list(tensor(x, name).shape) != expected:
        raise ValueError(f"{name} must be {expected} like {like}, got {list(x.shape)}")
    return x


def alike(name: str, first: Tensor, **others: Tensor | None) -> None:
    """The others have the shape, dtype and device of ``first``, whose name is ``name``."""
    shape, dtype, device = first.shape, first.dtype, first.device
    for other, t in others.items():
        if t is None:
            continue
        if tensor(t, other).shape != shape:
            raise ValueError(f"{other} must be {list(shape)} like {name}, got {list(t.shape)}")
        if t.dtype != dtype:
            raise TypeError(
                f"{other} must be {short(dtype)} like {name}, got {short(t.dtype)}; "
                f"pass {other}.to({name}.dtype)"
            )
        if t.device != device:
            same_device(**{name: first, other: t})


def row_index(index: Tensor | None, rows: int, device: torch.device) -> Tensor:
    """The global number of each row: int64 [rows], ``arange(rows)`` where none is given."""
    if index is None:
        return torch.arange(rows, device=device)
    tensor(index, "index")
    if index.dtype != torch.int64:
        raise TypeError(f"index must be int64, got {short(index.dtype)}; pass index.long()")
    if list(index.shape) != [rows]:
        raise ValueError(f"index must be [B] = [{rows}], got {list(index.shape)}")
    if rows and not torch.compiler.is_compiling():  # a traced index has no values yet
        lowest, highest = (int(end) for end in index.aminmax())
        if lowest < 0 or highest >= MAX_INDEX:
            raise ValueError(f"index must lie in [0, 2**44), got {lowest} to {highest}")
    return index.to(device)


def per_row(
    value: float | Tensor, name: str, rows: int, *, like: Tensor, minimum: float | None = None
) -> Tensor:
    """A float or a [B] tensor as a [B] tensor of ``like``'s dtype and device."""
    if hasattr(value, "__array__") and not isinstance(value, Tensor | Real):
        raise TypeError(
            f"{name} must be a float or a tensor [B], got {type(value).__name__}; "
            f"pass torch.as_tensor({name})"
        )
    if not isinstance(value, Tensor):
        value = number(value, name)
        if minimum is not None and value < minimum:
            raise ValueError(f"{name} must be at least {minimum:g}, got {value:g}")
        return torch.full((rows,), value, dtype=like.dtype, device=like.device)
    if value.is_complex() or value.dtype == torch.bool:
        raise TypeError(f"{name} must hold real numbers, got {short(value.dtype)}")
    elif value.ndim == 0:
        value = value.to(like).expand(rows)
    elif list(value.shape) != [rows]:
        raise ValueError(f"{name} must be a float or [B] = [{rows}], got {list(value.shape)}")
    if minimum is not None and bool((value < minimum).any()):
        raise ValueError(f"{name} must be at least {minimum:g}, got {float(value.min()):g}")
    return value.to(like)


def number(value: object, name: str) -> float:
    """A real number; NaN is refused, infinities are allowed."""
    if type(value) is float and value == value:
        return value
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    if math.isnan(value):
        raise ValueError(f"{name} must be a number, got nan")
    return float(value)


def option(value: T, name: str, allowed: Iterable[T]) -> T:
    allowed = tuple(allowed)
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")
    return value


def into_unit_interval(verb: str, name: str, low: float, high: float) -> str:
    """What maps values from ``low`` to ``high`` to [0, 1] as their maker meant them.

    Values that a resize or rounding left a little outside are clipped; 4, 8 and 16 bits have their
    own white; [-1, 1] is shifted. "rescale it" where nobody can know.
    """
    if low >= -SLACK and high <= 1 + SLACK:
        return f"{verb} {name}.clip(0, 1)"
    if low >= -1 - SLACK and high <= 1 + SLACK:
        return f"{verb} ({name} + 1) / 2"
    if low < -SLACK:
        return RESCALE
    if high <= FEW_LEVELS:
        return f"{verb} {name} / {high:g}"
    return f"{verb} {name} / 255" if high <= 255 else f"{verb} {name} / 65535 if white is that"


def count(value: int, name: str, minimum: int = 1) -> int:
    """A whole number, at least ``minimum``."""
    if type(value) is not int and (isinstance(value, bool) or not isinstance(value, Integral)):
        raise TypeError(f"{name} must be a whole number, got {type(value).__name__}")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}")
    return int(value)


def same_device(**tensors: Tensor | None) -> None:
    """All given tensors share the device of the first."""
    present = {name: t for name, t in tensors.items() if t is not None}
    names = iter(present)
    first = next(names)
    device = present[first].device
    for name in names:
        if present[name].device != device:
            raise ValueError(
                f"{name} is on {present[name].device}, {first} on {device}; "
                f"pass {name}.to({str(device)!r})"
            )


def eval_mode(module: nn.Module) -> None:
    """No layer that is random, or changes with every call, in training mode.

    Such a module is not one function of its input: dropout (also inside attention and recurrent
    layers), RReLU, batch norm, instance norm with running statistics, spectral norm.
    """
    for layer in layers(module):
        if layer.training and _varies_in_training(layer):
            name = next(name for name, other in module.named_modules() if other is layer)
            raise RuntimeError(
                f"layer {name!r} ({type(layer).__name__}) is in training mode; "
                "call model.eval() first"
            )


def varies_in_training(module: nn.Module) -> bool:
    """Whether a layer in it is another function in training mode, see :func:`eval_mode`."""
    return any(map(_varies_in_training, layers(module)))


def layers(module: nn.Module) -> list[nn.Module]:
    """The module and all layers in it, as ``module.modules()`` without its recursion."""
    found, seen = [module], {id(module)}
    for layer in found:
        for child in layer._modules.values():
            if child is not None and id(child) not in seen:
                seen.add(id(child))
                found.append(child)
    return found


def parameters(module: nn.Module) -> list[Tensor]:
    """All parameters of the module, as ``module.parameters()`` without its recursion."""
    found: list[Tensor] = []
    for layer in layers(module):
        for parameter in layer._parameters.values():
            if parameter is not None:
                found.append(parameter)
    return found


def _varies_in_training(layer: nn.Module) -> bool:
    if isinstance(layer, nn.MultiheadAttention | nn.RNNBase):
        return layer.dropout > 0
    if isinstance(layer, nn.modules.instancenorm._InstanceNorm):
        return layer.track_running_stats
    hooks = layer._forward_pre_hooks.values()  # where the older spectral norm lives
    return isinstance(layer, VARY_IN_TRAINING) or any(isinstance(h, SpectralNorm) for h in hooks)


def differentiable(module: nn.Module) -> None:
    """Autograd can pass through the module's weights."""
    if True in [p.is_inference() for p in parameters(module)]:
        raise ValueError(
            "the model was made under torch.inference_mode(), so autograd cannot pass through it; "
            "build or load it outside of torch.inference_mode()"
        )


def short(dtype: torch.dtype | torch.layout) -> str:
    """``float32`` rather than ``torch.float32``."""
    return str(dtype).removeprefix("torch.")
