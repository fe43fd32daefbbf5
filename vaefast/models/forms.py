"""In which form the modules of a VAE run in one call: as they are, in channels_last, or compiled.

Another form is a twin of the caller's module (:mod:`vaefast.models.twins`), made with the weights
of the moment. It is believed only after it was compared with the module on two rows, values and a
gradient; where code of a caller's own cannot work with such tensors (``view``), or anything raises
that the module itself does not, the module runs as it is.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from vaefast.models import context as contexts
from vaefast.models.again import Again
from vaefast.models.compiled import CompileError, compiled_twin
from vaefast.models.context import Context
from vaefast.models.example import Example
from vaefast.models.likelihoods import LikelihoodAt
from vaefast.models.sigmoid import without
from vaefast.models.state import State
from vaefast.models.twins import channels_last, pays, shallow
from vaefast.models.vae import VAE
from vaefast.runtime import batching, modules

__all__ = ["LAYOUTS", "Forms"]

LAYOUTS = ("contiguous", "channels_last")
PLAIN, COMPILED = "eager, contiguous", "torch.compile"
BLOCKS = "one shape on one thread, for the same bits"
SMALL = "no 2-D convolution in float32 that is large enough for channels_last"
FEW = 32  # rows whose encoding takes no longer than making a twin
GRADIENT = 0.05  # by which gradients may differ, relative: a unit at its kink may fall otherwise

T = TypeVar("T")
Call = Callable[[Again, Tensor, Context], T]


class _Verdict(NamedTuple):
    """What was found out about a module's twin, and the state that it was found in."""

    state: State
    refusal: str  # why it is not used, or ""


_verdicts: weakref.WeakKeyDictionary[nn.Module, dict[Any, _Verdict]] = weakref.WeakKeyDictionary()


class Forms:
    """The forms of one call's encoder and decoder, each chosen when it is first used.

    Args:
        vae: the caller's.
        example: rows that a twin is tried on.
        layout: one of LAYOUTS to have it whatever it costs, or None for the faster one.
    """

    def __init__(self, vae: VAE, example: Example, layout: str | None = None) -> None:
        self.vae, self._example, self._layout = vae, example, layout
        self._twins: dict[str, nn.Module] = {}  # by part, where its form is another
        self._found: dict[str, str] = {}  # by part: what runs
        self._encoded = False

    def in_layout(self, layout: str | None) -> Forms:
        """Those of the same call with another layout."""
        same = layout == self._layout
        return self if same else Forms(self.vae, self._example, layout)

    def described(self, part: str) -> str:
        """How "encoder" or "decoder" runs."""
        self._choose(part)
        return self._found[part]

    @cached_property
    def _own(self) -> Again:
        return Again(self.vae)

    @cached_property
    def _assembled(self) -> Again:
        return self._own.of(self._with(self._twins)) if self._twins else self._own

    def encode(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """As ``vae.encode``, of x like the example's."""
        return self._run(Again.encode, x, context, "encoder")

    def posterior(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """As ``vae.posterior``."""
        return self._run(Again.posterior, x, context, "encoder")

    def decode(self, z: Tensor, context: Context) -> Tensor:
        """As ``vae.decode``, of z [n, d]."""
        return self._run(Again.decode, z, context, "decoder")

    def g(self, z: Tensor, context: Context) -> Tensor:
        """As ``vae.g``, of z [n, d]."""
        return self._run(Again.g, z, context, "decoder")

    def likelihood_at(self, z: Tensor, context: Context) -> LikelihoodAt:
        """As ``vae.likelihood_at``."""
        return self._run(Again.likelihood_at, z, context, "decoder")

    def reconstruct(self, x: Tensor, context: Context) -> Tensor:
        """As ``vae.reconstruct``."""
        return self._run(Again.reconstruct, x, context, "encoder", "decoder")

    def _run(
        self,
        call: Callable[[Again, Tensor, Context], T],
        rows: Tensor,
        context: Context,
        *parts: str,
    ) -> T:
        """``call`` of a VAE whose ``parts``, "encoder" and "decoder", have their forms.

        Where it raises, of the caller's own VAE, which may raise the same.
        """
        for part in parts:
            if part not in self._found:
                if part == "encoder" and self._is_first(len(rows)):
                    return call(self._own, rows, context)
                self._choose(part)
        if self._assembled is self._own:
            return call(self._own, rows, context)
        try:
            return call(self._assembled, rows, context)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            result = call(self._own, rows, context)
            self._refuse([part for part in parts if part in self._twins], error)
            return result

    def _is_first(self, rows: int) -> bool:
        """Whether few rows are encoded for the first time: often they are the only ones."""
        first, self._encoded = not self._encoded, True
        return first and rows < FEW

    def _choose(self, part: str) -> None:
        if part in self._found:
            return
        self._found[part] = PLAIN  # while it is tried
        if batching.in_blocks():
            self._found[part] += f": {BLOCKS}"
        elif modules.compiled():
            self._compile(part)
        elif why := self._why_contiguous(part):
            self._found[part] += f": {why}"
        else:
            self._take(part, channels_last(self._module(part)), "eager, channels_last")

    def _why_contiguous(self, part: str) -> str:
        """What speaks against channels_last, or nothing."""
        if self._layout is not None:
            return "" if self._layout == "channels_last" else "as asked for"
        owner, key = self._owner(part), self._key(part)
        kept = _verdicts.setdefault(owner, {})
        if key not in kept or not kept[key].state.fits():
            kept[key] = _Verdict(State(owner), self._tried(part) if pays(owner) else SMALL)
        return kept[key].refusal

    def _tried(self, part: str) -> str:
        """Why the twin cannot stand for the module, or nothing."""
        try:
            twin = self._with({part: channels_last(self._module(part))})
            return "" if self._agree(part, twin) else "channels_last gave another result"
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            return _line(error)

    def _agree(self, part: str, twin: VAE) -> bool:
        """Whether the twin gives the VAE's values and gradient at the example."""
        (values, grad), (others, other) = (self._probe(part, vae) for vae in (self.vae, twin))
        eps = torch.finfo(values.dtype).eps ** 0.5
        near = (others - values).abs().max() <= eps * values.abs().max()
        apart = torch.linalg.vector_norm(other - grad)
        return bool(near & (apart <= GRADIENT * torch.linalg.vector_norm(grad)))

    def _probe(self, part: str, vae: VAE) -> tuple[Tensor, Tensor]:
        """Values at the example, [2, n], and the gradient of their squares."""
        example = self._example
        given = contexts.as_keyword(example.context)
        rows = example.x if part == "encoder" else example.latents(self.vae)
        with torch.enable_grad():
            rows = rows.detach().requires_grad_()
            found = vae.encode(rows, **given) if part == "encoder" else (vae.decode(rows, **given),)
            values = torch.cat([t.flatten(1) for t in found], dim=1)
            if not values.requires_grad:
                return values, torch.zeros_like(rows)
            (grad,) = torch.autograd.grad(values.square().sum(), rows, materialize_grads=True)
        return values.detach(), grad

    def _compile(self, part: str) -> None:
        if part == "decoder" and self._watches:
            self._found[part] += ": its sigmoid is left out by watching calls"
            return
        try:
            twin, new = compiled_twin(self._owner(part), self._module(part), self._key(part))
            if new and not self._agree(part, self._with({part: twin})):
                raise CompileError(part, "it gives another result")
        except (CompileError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            self._probe(part, self.vae)  # an error of the model's own
            raise CompileError(part, _line(error)) from None
        self._take(part, twin, COMPILED)

    def _take(self, part: str, twin: nn.Module, how: str) -> None:
        self._twins[part], self._found[part] = twin, how
        self.__dict__.pop("_assembled", None)

    def _with(self, twins: dict[str, nn.Module]) -> VAE:
        """The VAE with these in place of its parts."""
        if not twins:
            return self.vae
        vae = shallow(self.vae)
        vae._modules.update(twins)
        if "decoder" in twins and self._path is not None:
            vae.decoder_output = "logits"
        elif "decoder" in twins:
            vae.logit_decoder = copy.copy(self.vae.logit_decoder)
            vae.logit_decoder.decoder = twins["decoder"]
        return vae

    @property
    def _path(self) -> str | None:
        """Of the final Sigmoid that the decoder runs without."""
        known = self.vae.decoder_output == "probabilities"
        return self.vae.logit_decoder.path if known else None

    @property
    def _watches(self) -> bool:
        return self.vae.decoder_output == "probabilities" and self._path is None

    def _owner(self, part: str) -> nn.Module:
        owner: nn.Module = getattr(self.vae, part)
        return owner

    def _module(self, part: str) -> nn.Module:
        """What there is to make a twin of."""
        owner, path = self._owner(part), self._path
        return owner if part == "encoder" or path is None else without(owner, path)

    def _key(self, part: str) -> tuple:
        x, z = self._example.x, self._example.z
        return part, x.shape[1:], z.shape[1:], x.dtype, x.device.type

    def _refuse(self, parts: list[str], error: Exception) -> None:
        """Run the caller's own modules from now on."""
        for part in parts:
            if self._found[part] == COMPILED:
                raise CompileError(part, _line(error)) from None
            owner = self._owner(part)
            _verdicts.setdefault(owner, {})[self._key(part)] = _Verdict(State(owner), _line(error))
            self._found[part] = f"{PLAIN}: {_line(error)}"
            del self._twins[part]
        self.__dict__.pop("_assembled", None)


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
