"""Exact logits of a decoder that ends in a sigmoid, in any spelling: the decoder without it."""

from __future__ import annotations

from inspect import getattr_static
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vaefast.models.context import Context, call, repeated, rows
from vaefast.models.likelihoods import clamped_logit
from vaefast.models.results import image
from vaefast.models.twins import shallow

__all__ = ["LogitDecoder", "final_sigmoid", "is_plain_sequential", "without"]

M = TypeVar("M", bound=nn.Module)

PROBABILITIES = "probabilities"
_RESHAPES = (nn.Identity, nn.Flatten, nn.Unflatten)
_SIGMOIDS = {
    torch.sigmoid,
    torch.sigmoid_,
    torch.special.expit,
    Tensor.sigmoid,
    Tensor.sigmoid_,
}
_MOVES = (
    "view reshape view_as reshape_as flatten unflatten squeeze unsqueeze permute transpose t "
    "movedim swapaxes contiguous clone"
)


class _Sigmoids(TorchFunctionMode):
    """Counts the calls of sigmoid, leaves out one of them, and knows which gave a tensor.

    Args:
        left_out: index of the call that returns its argument; None for none.
    """

    def __init__(self, left_out: int | None = None) -> None:
        super().__init__()
        self.calls = 0
        self._left_out = left_out
        self._from: dict[int, int] = {}  # by the tensor's id
        self._alive: list[Tensor] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _SIGMOIDS:
            index, self.calls = self.calls, self.calls + 1
            if index == self._left_out:
                return args[0] if args else (kwargs or {})["input"]
            return self._remember(func(*args, **(kwargs or {})), index)
        result = func(*args, **(kwargs or {}))
        moves = getattr(func, "__name__", "") in _MOVES.split()
        source = self._from.get(id(args[0])) if moves and args else None
        if source is not None:
            return self._remember(result, source)
        self._from.pop(id(result), None)  # written in place
        return result

    def _remember(self, result: Tensor, index: int) -> Tensor:
        self._from[id(result)] = index
        self._alive.append(result)
        return result

    def source(self, result: Any) -> int | None:
        """The call whose result this is, up to reshapes."""
        return self._from.get(id(result))


class LogitDecoder:
    """Logits of a decoder that returns probabilities.

    A decoder that is a nest of ``nn.Sequential`` and ends in a Sigmoid is known from its
    structure. For any other the calls of sigmoid are watched at the first decode in eval mode, be
    it a module, a function or a method: where the output is the result of one, up to reshapes, the
    decoder is run without that call, so the logits are exact and differentiable. Where there is
    none, the logits are those of the clamped probabilities.

    The decoder itself is never changed.
    """

    def __init__(self, decoder: nn.Module) -> None:
        self._look(decoder)

    def _look(self, decoder: nn.Module) -> None:
        self.decoder = decoder
        self.path = final_sigmoid(decoder)
        self.left_out: int | None = None
        self.decided = self.path is not None

    def __call__(self, decoder: nn.Module, z: Tensor, context: Context = None) -> Tensor:
        if not self.exact(decoder, z, context):
            return clamped_logit(image(call(decoder, z, context), PROBABILITIES))
        if self.path is not None:
            return image(call(without(decoder, self.path), z, context), PROBABILITIES)
        with _Sigmoids(self.left_out):
            return image(call(decoder, z, context), PROBABILITIES)

    def exact(self, decoder: nn.Module, z: Tensor, context: Context = None) -> bool:
        """Whether the sigmoid that ends the decoder is known, if need be by one decode like z."""
        if decoder is not self.decoder:
            self._look(decoder)
        if not self.decided and not _is_random(decoder):
            self.left_out = _final_call(decoder, z, context)
            self.decided = True
        return self.path is not None or self.left_out is not None

    def __str__(self) -> str:
        if self.path is not None:
            return f"the final Sigmoid ({self.path!r}) is left out, so the logits are exact"
        if not self.decided:
            return "decided at the first decode in eval mode; explain(vae, x) makes one"
        if self.left_out is not None:
            return "the final sigmoid is left out, so the logits are exact"
        return "no final sigmoid found: logit of the probability clamped by the dtype's epsilon"


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
    forward = getattr_static(type(module), "forward", None)
    return forward is nn.Sequential.forward and "forward" not in vars(module)


def without(module: M, path: str) -> M:
    """The module with an Identity at ``path``, sharing everything else with the original."""
    name, _, rest = path.partition(".")
    child = module._modules[name]
    assert child is not None
    copy = shallow(module)
    copy._modules[name] = without(child, rest) if rest else nn.Identity()
    return copy


def _is_random(module: nn.Module) -> bool:
    """Whether two calls may differ or leave a trace: dropout or batch norm in training mode."""
    changing = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)
    return any(layer.training and isinstance(layer, changing) for layer in module.modules())


@torch.no_grad()
def _final_call(decoder: nn.Module, z: Tensor, context: Context = None) -> int | None:
    """Index of the sigmoid whose result the decoder returns, on rows of which some saturate."""
    latent = z.shape[1:]
    probe = torch.linspace(-1, 1, 2 * latent.numel(), dtype=z.dtype, device=z.device)
    probe = torch.cat([probe, 1e3 * probe]).reshape(4, *latent)
    context = repeated(rows(context, slice(0, 1)), 4)
    with _Sigmoids() as watched:
        out = image(call(decoder, probe, context), PROBABILITIES)
    index = watched.source(out)
    if index is None:
        return None
    with _Sigmoids(index):
        logits = image(call(decoder, probe, context), PROBABILITIES)
    tolerance = 4 * torch.finfo(out.dtype).eps
    same = torch.allclose(torch.sigmoid(logits), out, rtol=tolerance, atol=0, equal_nan=True)
    return index if same else None
