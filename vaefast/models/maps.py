"""The maps of a VAE: networks for the fused ops where they lower, else the caller's modules.

Everything but training goes through here; :mod:`vaefast.models.prepare` makes the maps once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor

from vaefast.models import context as conditions
from vaefast.models import lowering
from vaefast.models.calls import HALF as HALF_DTYPES
from vaefast.models.calls import as_event
from vaefast.models.compose import chained, followed_by, in_float32, joined, missing_kernel
from vaefast.models.context import Context
from vaefast.models.example import Example
from vaefast.models.forms import Forms
from vaefast.models.joint import require_reconstructions
from vaefast.models.known import Known
from vaefast.models.likelihoods import LikelihoodAt
from vaefast.models.packs import packs_of
from vaefast.models.products import HalfMap, Map, ModuleMap, NetworkMap
from vaefast.models.shared import Shared
from vaefast.models.vae import VAE
from vaefast.types import Network

__all__ = ["Map", "Maps"]

HALF, CONTEXT = "the model is in half precision", "a context is given"


class Maps:
    """The maps of one VAE on inputs of one kind, each lowered when it is first used.

    Values of half-precision modules are the modules' own; products with their Jacobians are taken
    in float32. With a context all maps are evaluated as modules.

    Args:
        call: what all maps of a call share.
        context: the rows' conditions; a method's inputs are these rows, each n ≥ 1 times in a row.
        rows: how many.
    """

    def __init__(self, call: Shared, context: Context, rows: int) -> None:
        self._call, self.context, self._rows = call, context, rows
        self.vae, self.packs, self.forms = call.vae, call.packs, call.forms

    @classmethod
    def of(
        cls,
        vae: VAE,
        example: Example,
        context: Context,
        rows: int,
        *,
        precision: str = "ieee",
        backend: str | None = None,
        trusted: bool = False,
    ) -> Maps:
        """The maps on rows like the example's; ``precision`` as of :class:`NetworkMap`.

        ``trusted``: take modules for functions of their rows without trying.
        """
        known = {"encoder", "decoder"} if trusted else set[str]()
        packs, forms = packs_of(vae), Forms(vae, example)
        call = Shared(vae, example, precision, backend, packs, {}, known, forms)
        return cls(call, context, rows)

    def at(self, rows: slice | Tensor, count: int) -> Maps:
        """The maps for some of the rows, ``count`` of them."""
        if self.context is None:
            return self
        return Maps(self._call, conditions.rows(self.context, rows), count)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance [b, d] each, as ``vae.encode``; lowered ones differentiate once."""
        if not self.heads:
            return self.encode_by_module(x)
        values = [head.value(x.flatten(1)) for head in self.heads]
        if self.vae.fixed_std:
            return values[0], self._fixed_logvar(x).expand_as(values[0])
        mean, scale = values[0].chunk(2, dim=1) if len(values) == 1 else values
        return mean, scale if self.encoder.std is None else 2.0 * torch.log(scale)

    def encode_by_module(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``vae.encode``, whatever lowers."""
        return self.forms.encode(x, self._of(x))

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(z|x), [b, d] each."""
        mean, logvar = self.encode(x)
        return mean, torch.exp(0.5 * logvar)

    def posterior_by_module(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``vae.posterior``, whatever lowers."""
        return self.forms.posterior(x, self._of(x))

    def fixed_std(self, mean: Tensor) -> Tensor:
        """σ [b, d] where it does not depend on x, for means [b, d]."""
        return torch.exp(0.5 * self._fixed_logvar(mean)).expand_as(mean)

    def decode(self, z: Tensor) -> Tensor:
        """Natural parameters [n, *event], as ``vae.decode``."""
        if self.decoder.lowered is None:
            return self.decode_by_module(z)
        return as_event(self.decoder.value(z), len(z), self.vae.event_shape)

    def decode_by_module(self, z: Tensor) -> Tensor:
        """``vae.decode``, whatever lowers."""
        return self.forms.decode(z, self._of(z))

    def likelihood_at(self, z: Tensor) -> LikelihoodAt:
        """p(x|z) at z, as ``vae.likelihood_at``."""
        if self.decoder.lowered is not None:
            return LikelihoodAt(self.vae.likelihood, self.decode(z), self.vae.likelihood_params)
        return self.forms.likelihood_at(z, self._of(z))

    def g(self, z: Tensor) -> Tensor:
        """The reconstruction in pixel scale [n, *event], as ``vae.g``."""
        if self.pixels.lowered is None:
            return self._pixels_by_module(z)
        return as_event(self.pixels.value(z), len(z), self.vae.event_shape)

    def reconstruct(self, x: Tensor) -> Tensor:
        """g(μ(x)), as ``vae.reconstruct``."""
        return self.g(self.encode(x)[0])

    def log_prior(self, z: Tensor) -> Tensor:
        """log p(z) [n] float64 in nats, as ``vae.log_prior``."""
        return self.vae.log_prior(z, **self._given(z))

    @property
    def known(self) -> Known | None:
        """The VAE as its last call found it, where nothing has changed since."""
        return self._call.example.known

    @property
    def latents(self) -> int:
        """d, entries of one latent."""
        return self._call.example.z.shape[1]

    def generic(self, *names: str) -> bool:
        """Whether one of these is evaluated as a module: "encoder" (as a whole) or attributes."""
        for name in names:
            if name == "encoder":
                if not self.heads:
                    return True
            elif (part := getattr(self, name)) is not None and part.lowered is None:
                return True
        return False

    @cached_property
    def mean(self) -> Map:
        """x ↦ μ(x)."""
        module = self._encoding(lambda x: self.encode_by_module(x)[0])
        return self._map("mean", self.encoder.mean, self.encoder.why_not, module)

    @cached_property
    def scale(self) -> Map | None:
        """x ↦ log σ²(x), or σ(x) where the encoder gives that; None where σ depends on no x."""
        if self.vae.fixed_std or self.encoder.std is not None:
            return self.std
        module = self._encoding(lambda x: self.encode_by_module(x)[1])
        return self._map("logvar", self.encoder.logvar, self.encoder.why_not, module)

    @cached_property
    def std(self) -> Map | None:
        """x ↦ σ(x) = exp(½ log σ²(x)) in one pass, or None where σ does not depend on x."""
        if self.vae.fixed_std:
            return None
        module = self._encoding(lambda x: self.posterior_by_module(x)[1])
        net, reason = self.encoder.logvar, self.encoder.why_not
        name = "logvar" if net is None or net.activations[-1] == "identity" else "std"
        net = self.encoder.std if net is None else followed_by(net, "exp_half")
        return self._map(name, net, reason, module)

    @cached_property
    def decoder(self) -> Map:
        """z ↦ natural parameters."""
        module = self._decoding(self.decode_by_module)
        return self._map("decoder", *self._lowered_decoder, module)

    @cached_property
    def pixels(self) -> Map:
        """z ↦ g(z)."""
        module = self._decoding(self._pixels_by_module)
        return self._map("decoder", *self._lowered_pixels, module)

    @cached_property
    def reconstruction(self) -> Map:
        """x ↦ g(μ(x))."""
        first, second = self.mean, self.pixels
        event, reason = self._call.example.like.shape[1:], first.why_not or second.why_not
        module = ModuleMap(
            self._reconstruct_by_module,
            event,
            second.outputs,
            lambda: self._call.encoder_bytes() + self._call.decoder_bytes(),
            reason,
        )
        exact = [p.products if isinstance(p, HalfMap) else p for p in (first, second)]
        nets = [part.lowered for part in exact if part.lowered is not None]
        if len(nets) < 2:
            return module
        whole = self._network("reconstruction", chained(*nets))
        return HalfMap(**vars(module), products=whole) if self.generic("mean", "pixels") else whole

    def _pixels_by_module(self, z: Tensor) -> Tensor:
        require_reconstructions(self.vae)
        return self.forms.g(z, self._of(z))

    def _reconstruct_by_module(self, x: Tensor) -> Tensor:
        return self.forms.reconstruct(x, self._of(x))

    def _fixed_logvar(self, like: Tensor) -> Tensor:
        return cast(Tensor, self.vae.encoder.logvar).detach().to(like.dtype)

    @cached_property
    def heads(self) -> tuple[Map, ...]:
        """What gives μ and log σ²: one network, two, or none where the module does."""
        mean, scale = self.mean, self.scale
        if self.generic("mean", "scale"):
            return ()
        if scale is None:
            return (mean,)
        first = cast(Network, mean.lowered)
        plain = first.activations[-1] == "identity"
        both = joined(first, cast(Network, scale.lowered)) if plain else None
        return (mean, scale) if both is None else (self._network("encoder", both),)

    @cached_property
    def encoder(self) -> lowering.Encoder:
        """What the encoder lowers to."""
        if self.context is not None:
            return lowering.Encoder(None, None, CONTEXT)
        example = self._call.example
        if example.known is not None:
            return example.known.encoder
        return lowering.encoder(self.vae, example.x, example.moments)

    @property
    def _lowered_decoder(self) -> tuple[Network | None, str]:
        net = self._call.example.decoder(self.vae)
        return self._lowered(lowering.decoder) if net is None else (net, "")

    @property
    def _lowered_pixels(self) -> tuple[Network | None, str]:
        net = self._call.example.decoder(self.vae)
        if net is None:
            return self._lowered(lowering.pixels)
        return self._lowered(lambda vae, *_: lowering.in_pixels(vae, net))

    def _lowered(self, lower: Callable[..., Network]) -> tuple[Network | None, str]:
        if self.context is not None:
            return None, CONTEXT
        example = self._call.example
        try:
            return lower(self.vae, example.z, lambda: example.latents(self.vae)), ""
        except lowering.CannotLower as error:
            return None, error.reason

    def _map(
        self, name: str, net: Network | None, reason: str, module: Callable[[str], ModuleMap]
    ) -> Map:
        if net is None:
            self._call.require_function("decoder" if name == "decoder" else "encoder")
            return module(reason)
        half = net.weights[0].dtype in HALF_DTYPES
        net = in_float32(net) if half else net
        reason = missing_kernel(net, self._call.example.like, self._call.backend)
        if reason:
            return module(reason)
        whole = self._network(name, net)
        return HalfMap(**vars(module(HALF)), products=whole) if half else whole

    def _network(self, name: str, net: Network) -> NetworkMap:
        return NetworkMap(net, name, self.packs, self._call.precision)

    def _encoding(self, function: Callable[[Tensor], Tensor]) -> Callable[[str], ModuleMap]:
        event, bytes_of_row = self._call.example.like.shape[1:], self._call.encoder_bytes
        return lambda reason: ModuleMap(function, event, self.latents, bytes_of_row, reason)

    def _decoding(self, function: Callable[[Tensor], Tensor]) -> Callable[[str], ModuleMap]:
        pixels, event = self._call.example.like.shape[1:].numel(), self._call.example.z.shape[1:]
        return lambda reason: ModuleMap(function, event, pixels, self._call.decoder_bytes, reason)

    def _given(self, inputs: Tensor) -> dict[str, Any]:
        """The context of the inputs, as the VAE's methods take it."""
        return conditions.as_keyword(self._of(inputs))

    def _of(self, inputs: Tensor) -> Context:
        """The context of the inputs."""
        if self.context is None:
            return None
        return conditions.repeated(self.context, len(inputs) // max(self._rows, 1))
