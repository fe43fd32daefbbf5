"""Twins of modules: they share everything with the caller's but the layout of some weights."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

__all__ = ["channels_last", "pays", "shallow", "twin_of"]

M = TypeVar("M", bound=nn.Module)

CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
PLAIN = (Tensor, nn.Parameter)
CHANNELS = 16  # of a convolution from which on channels_last was faster on every model measured


def pays(module: nn.Module) -> bool:
    """Whether channels_last makes the module faster on a CPU.

    Measured on eleven encoders and decoders (docs/performance.md): with a convolution of at least
    16 channels in float32 they take 0.6 to 0.9 of the time, smaller ones as long; in float64,
    for which the library has no kernels, up to twice as long.
    """
    return any(
        isinstance(layer, CONVOLUTIONS)
        and max(layer.in_channels, layer.out_channels) >= CHANNELS
        and max(layer.kernel_size) > 1
        and (weight := _weight(layer)) is not None
        and (weight.dtype, weight.device.type) == (torch.float32, "cpu")
        for layer in module.modules()
    )


def channels_last(module: nn.Module) -> nn.Module:
    """A twin whose 2-D convolutions hold copies of their weights in that layout.

    Everything else is the caller's: other weights, buffers, hooks and attributes.

    Raises:
        TypeError: a compiled or scripted module is in it, which has no twins.
    """
    return twin_of(module, last=True)


def twin_of(module: nn.Module, *, last: bool = False) -> nn.Module:
    """A twin, in channels_last or in the caller's layout."""
    return _twin(module, last, {})


def shallow(module: M) -> M:
    """Another object of the module's class, with the same attributes and tables of its own."""
    twin: M = object.__new__(type(module))
    twin.__dict__.update(vars(module))
    for name in ("_parameters", "_buffers", "_modules"):
        twin.__dict__[name] = dict(vars(module)[name])
    return twin


def _twin(module: nn.Module, last: bool, made: dict[int, nn.Module]) -> nn.Module:
    if id(module) in made:
        return made[id(module)]
    if isinstance(module, torch.jit.ScriptModule) or hasattr(module, "_orig_mod"):
        raise TypeError(f"{type(module).__name__} runs code that was made for its own weights")
    twin = made[id(module)] = shallow(module)
    weight = _weight(module) if last else None
    if weight is not None:
        # not .contiguous(): of one channel it leaves strides by which no library sees the layout
        turned = weight.detach().to(memory_format=torch.channels_last, copy=True)
        twin._parameters["weight"] = nn.Parameter(turned, requires_grad=False)
    for name, child in module._modules.items():
        twin._modules[name] = None if child is None else _twin(child, last, made)
    return twin


def _weight(module: nn.Module) -> Tensor | None:
    """The weight of a 2-D convolution, where it is no wrapper's; or None."""
    weight = module._parameters.get("weight") if isinstance(module, CONVOLUTIONS) else None
    return weight if type(weight) in PLAIN else None
