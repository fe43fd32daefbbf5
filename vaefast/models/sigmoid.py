"""Exact logits of a decoder that ends in a Sigmoid: the same decoder without it."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

from vaefast.models.context import Context, call, repeated, rows
from vaefast.models.likelihoods import clamped_logit
from vaefast.models.results import image

__all__ = ["LogitDecoder", "final_sigmoid", "is_plain_sequential"]

M = TypeVar("M", bound=nn.Module)

PROBABILITIES = "probabilities"
_RESHAPES = (nn.Identity, nn.Flatten, nn.Unflatten)


class LogitDecoder:
    """Logits of a decoder that returns probabilities.

    A Sigmoid that ends the decoder's ``nn.Sequential`` is known from its structure. In a decoder
    whose forward is Python code it is looked for at the first decode: a Sigmoid is the final one
    if the decoder without it gives logits whose sigmoid is the decoder's output. Where there is
    none, the logits are those of the clamped probabilities.

    The decoder itself is never changed: a call runs a shallow copy of the modules on the path to
    the Sigmoid, which share their parameters, buffers and other children with the originals.
    """

    def __init__(self, decoder: nn.Module) -> None:
        self._look(decoder)

    def _look(self, decoder: nn.Module) -> None:
        self.decoder = decoder
        self.path = final_sigmoid(decoder)
        self.decided = self.path is not None or not _sigmoids(decoder)

    def __call__(self, decoder: nn.Module, z: Tensor, context: Context = None) -> Tensor:
        if decoder is not self.decoder:
            self._look(decoder)
        if not self.decided and not _is_random(decoder):
            self.path = _search(decoder, z, context)
            self.decided = True
        if self.path is None:
            return clamped_logit(image(call(decoder, z, context), PROBABILITIES))
        return image(call(without(decoder, self.path), z, context), PROBABILITIES)

    def __str__(self) -> str:
        if self.path is not None:
            return f"the final Sigmoid ({self.path!r}) is left out, so the logits are exact"
        if not self.decided:
            return "decided at the first decode in eval mode; explain(vae, x) makes one"
        return "no final nn.Sigmoid found: logit of the probability clamped by the dtype's epsilon"


def final_sigmoid(decoder: nn.Module, prefix: str = "") -> str | None:
    """Path of the Sigmoid that ends a nest of ``nn.Sequential``, where only reshapes follow it."""
    if not is_plain_sequential(decoder):
        return None
    for name, layer in reversed(list(decoder.named_children())):
        if type(layer) is nn.Sigmoid:
            return prefix + name
        if not isinstance(layer, _RESHAPES):
            return final_sigmoid(layer, f"{prefix}{name}.")
    return None


def is_plain_sequential(module: nn.Module) -> bool:
    """Whether the module calls its children one after the other and does nothing else."""
    return type(module).forward is nn.Sequential.forward and "forward" not in vars(module)


def without(module: M, path: str) -> M:
    """The module with an Identity at ``path``, sharing everything else with the original."""
    name, _, rest = path.partition(".")
    child = module._modules[name]
    assert child is not None
    copy = type(module).__new__(type(module))
    copy.__dict__.update(vars(module))
    replaced = without(child, rest) if rest else nn.Identity()
    copy.__dict__["_modules"] = {**module._modules, name: replaced}
    return copy


def _sigmoids(module: nn.Module) -> list[str]:
    return [name for name, layer in module.named_modules() if type(layer) is nn.Sigmoid]


def _is_random(module: nn.Module) -> bool:
    """Whether two calls may differ or leave a trace: dropout or batch norm in training mode."""
    changing = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)
    return any(layer.training and isinstance(layer, changing) for layer in module.modules())


@torch.no_grad()
def _search(decoder: nn.Module, z: Tensor, context: Context = None) -> str | None:
    """The Sigmoid without which the decoder returns the logits of what it returns with it."""
    latent = z.shape[1:]
    probe = torch.linspace(-1, 1, 2 * latent.numel(), dtype=z.dtype, device=z.device)
    probe, context = probe.reshape(2, *latent), repeated(rows(context, slice(0, 1)), 2)
    probabilities = image(call(decoder, probe, context), PROBABILITIES)
    for path in reversed(_sigmoids(decoder)):
        logits = image(call(without(decoder, path), probe, context), PROBABILITIES)
        if logits.shape == probabilities.shape and torch.allclose(
            torch.sigmoid(logits), probabilities, rtol=1e-4, atol=1e-6
        ):
            return path
    return None
