"""Lowering: a module's forward as a network of plain tensors, which the fused ops take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vaefast import checks
from vaefast.functional.counts import COUNTS
from vaefast.models.module_stack import Root
from vaefast.models.packs import is_frozen
from vaefast.models.plans import CannotLower, LogOf
from vaefast.models.traces import networks, remembered
from vaefast.models.vae import VAE
from vaefast.types import Network

__all__ = [
    "CannotLower",
    "Encoder",
    "decoder",
    "encoder",
    "encoder_logvar",
    "encoder_mean",
    "lower",
    "pixels",
]


NO_LOGARITHM = "takes the logarithm of what is no exponential"
SIMPLE = frozenset((str, int, float, bool, type(None)))
CHANGING = frozenset(("latent_dim", "training"))


class Encoder(NamedTuple):
    """The encoder's two networks on flat x, and why there is none where there is none.

    The scale is either log σ², or σ itself where the module takes the logarithm of it. ``variance``
    is σ² where it takes that of σ²: no layer makes σ of it, so that the encoder is a module, but
    bounds of it there are.
    """

    mean: Network | None
    logvar: Network | None
    why_not: str
    std: Network | None = None
    variance: Network | None = None


def lower(module_or_function: Callable[[Tensor], Any], example: Tensor) -> Network:
    """The network that a module or function computes on its flattened input.

    One forward pass on two random rows is recorded, and each of its operations must be one that a
    layer computes: linear layers, convolutions, average pooling, nearest upsampling, residual
    sums, activations; views and permutations, slices, scales, shifts and batch normalisation by
    running statistics are folded into them. The result was compared with the module on rows
    drawn like the example's: |network in float64 − module| ≤ 64 ulp of the largest intermediate
    value. Equivalent to, but for the time::

        ops.net_forward(x.flatten(1), vaefast.lower(module, x)) == module(x).flatten(1)

    Args:
        module_or_function: a module, a module's method such as ``model.decode``, or a function of
            one tensor that returns one. Of a ``decode`` that ends in a sigmoid, the Bernoulli
            likelihoods of ``ops`` take the logits: ``net.with_epilogue("identity")``.
        example: [b, *event], floating; its values tell how the rows of the comparison are drawn.

    Returns:
        The parameters, detached and shared with the module, in their own dtype; folded ones are
        new tensors.

    Raises:
        CannotLower: with the reason, which names the operation and the module that stand in the
            way.
        TypeError: ``module_or_function`` cannot be called.
    """
    checks.batch(example, "example")
    if not callable(module_or_function):
        kind = type(module_or_function).__name__
        raise TypeError(f"module_or_function must be callable, got {kind}")
    owner = getattr(module_or_function, "__self__", module_or_function)
    module = owner if isinstance(owner, nn.Module) else None
    label = _label(module_or_function, owner)
    nets = _networks(Root(module_or_function, module, label), example)
    if len(nets) != 1:
        raise CannotLower(_several(label, nets))
    return _given(nets[0])


def _several(label: str, nets: list[Network | LogOf | str]) -> str:
    """Why a function does not lower that returns not one tensor, and what would."""
    name = "model" + label[label.rfind(".") :] if "." in label and "<" not in label else "model"
    refused = "".join(f"; [{i}]: {net}" for i, net in enumerate(nets) if isinstance(net, str))
    if not nets:
        return f"{label} returns no tensor, a network one; pass a function that returns one"
    way_out = f"take one of them: vaefast.lower(lambda x: {name}(x)[0], x)"
    return f"{label} returns {len(nets)} tensors, a network one; {way_out}{refused}"


def encoder(vae: VAE, x: Tensor, moments: tuple[Tensor, ...] = ()) -> Encoder:
    """x ↦ μ(x) and x ↦ log σ²(x) as networks, for x like the example [b, *event].

    Layers that both have in common are the same tensors. ``logvar`` is None for a fixed σ.

    ``moments``: what ``vae.encode`` gives for x, where the caller knows.
    """
    try:
        nets = _networks(*_encoding(vae, x), seen=moments, frozen=is_frozen(vae))
    except CannotLower as error:
        return Encoder(None, None, error.reason)
    return _heads(vae, nets)


def known_encoder(vae: VAE, x: Tensor, *, frozen: bool = False) -> Encoder | None:
    """As :func:`encoder` where no module need run for it; ``frozen``: so the caller promises."""
    nets = remembered(*_encoding(vae, x), frozen=frozen)
    if not nets or any(isinstance(net, str) for net in nets):
        return None
    found = _heads(vae, nets)
    return None if found.variance is not None else found


def known_decoder(vae: VAE, z: Tensor) -> Network | None:
    """As :func:`decoder` where no module need run for it."""
    if vae.decoder_output not in ("logits", "mean"):
        return None
    nets = remembered(*_decoding(vae, z))
    return nets[0] if nets and isinstance(nets[0], Network) else None


def _encoding(vae: VAE, x: Tensor) -> tuple[Root, Tensor, tuple[Any, ...]]:
    root = _root(vae, vae.encode, "encoder", vae.encoder)
    return root, x, _options(vae, vae.encoder)


def _decoding(vae: VAE, z: Tensor) -> tuple[Root, Tensor, tuple[Any, ...]]:
    return _root(vae, vae.decode, "decoder", vae.decoder), z, _options(vae, vae.decoder)


def _heads(vae: VAE, nets: list[Network | LogOf | str]) -> Encoder:
    mean, scale = nets
    variance = std = None
    if vae.fixed_std:
        scale = ""
    elif isinstance(scale, LogOf):
        std, variance = (scale.of, None) if scale.factor == 2.0 else (None, scale.of)
        scale = "" if variance is None else scale.reason
    if isinstance(mean, LogOf):
        mean = mean.reason or NO_LOGARITHM
    reasons = [net for net in (mean, scale) if isinstance(net, str)]
    found = [net if isinstance(net, Network) else None for net in (mean, scale)]
    return Encoder(found[0], found[1], next(filter(None, reasons), ""), std, variance)


def decoder(
    vae: VAE, z: Tensor | None = None, values: Callable[[], Tensor] | None = None
) -> Network:
    """z ↦ natural parameters: logits or the Gaussian's mean, for z like the example [n, d].

    Args:
        values: makes the example, where z has its shape, dtype and device alone.

    Raises:
        CannotLower: with the reason.
    """
    if vae.decoder_output == "joint":
        raise CannotLower("log p(x, z) is a function of the caller's")
    if z is None:
        z = _latents(vae)
    if vae.decoder_output == "probabilities" and not vae.logit_decoder.exact(
        vae.decoder, z if values is None else values()
    ):
        raise CannotLower("the decoder's probabilities do not come from a final Sigmoid")
    (net,) = _networks(*_decoding(vae, z), values, frozen=is_frozen(vae))
    if vae.decoder_output == "mean_logvar":
        raise CannotLower("the decoder has a second head, the log-variance of its pixels")
    if vae.decoder_output == "mean_dispersion":
        raise CannotLower("the decoder has a second head, the dispersion of its counts")
    return _given(net)


def pixels(
    vae: VAE, z: Tensor | None = None, values: Callable[[], Tensor] | None = None
) -> Network:
    """z ↦ g(z), the reconstruction in pixel scale; arguments as of :func:`decoder`.

    Raises:
        CannotLower: with the reason.
    """
    return in_pixels(vae, decoder(vae, z, values))


def in_pixels(vae: VAE, net: Network) -> Network:
    """The decoder's network followed by what makes pixels of its natural parameters.

    Raises:
        CannotLower: with the reason.
    """
    if vae.likelihood == "gaussian":
        return net
    if vae.likelihood in COUNTS:
        raise CannotLower("the mean of counts is no activation of the decoder's output")
    if (last := net.activations[-1]) != "identity":
        raise CannotLower(f"the decoder's logits come from {last}: no room for a sigmoid epilogue")
    return net.with_epilogue("sigmoid")


def encoder_mean(vae: VAE, x: Tensor) -> Network:
    """x ↦ μ(x), flattened x. Raises :class:`CannotLower`."""
    found = encoder(vae, x)
    if found.mean is None:
        raise CannotLower(found.why_not)
    return found.mean


def encoder_logvar(vae: VAE, x: Tensor) -> Network:
    """x ↦ log σ²(x), flattened x. Raises :class:`CannotLower`."""
    if vae.fixed_std:
        raise CannotLower("encoder_logvar is a fixed tensor, not a network")
    found = encoder(vae, x)
    if found.logvar is None:
        raise CannotLower(found.why_not or NO_LOGARITHM)
    return found.logvar


def _networks(
    root: Root,
    example: Tensor,
    key: tuple = (),
    values: Callable[[], Tensor] | None = None,
    *,
    seen: tuple[Tensor, ...] = (),
    frozen: bool = False,
) -> list[Network | LogOf | str]:
    if not example.is_floating_point():
        raise CannotLower(f"the example must be floating, got {checks.short(example.dtype)}")
    return networks(root, example, key, values, seen=seen, frozen=frozen)


def _given(net: Network | LogOf | str) -> Network:
    if not isinstance(net, Network):
        raise CannotLower(net if isinstance(net, str) else net.reason or NO_LOGARITHM)
    return net


def _label(function: Any, owner: Any) -> str:
    if function is owner:
        name = getattr(function, "__qualname__", "")
        return name or type(function).__name__
    return f"{type(owner).__name__}.{getattr(function, '__name__', 'method')}"


def _root(vae: VAE, function: Callable[[Tensor], Any], name: str, part: nn.Module) -> Root:
    owner = getattr(part, "module", None)
    if isinstance(owner, nn.Module):  # a method of the caller's module, whose paths are the names
        method = "encode" if name == "encoder" else "decode"
        return Root(function, owner, f"{type(owner).__name__}.{method}")
    ours = type(vae).__module__.startswith("vaefast.models.")
    ours = ours and getattr(function, "__func__", None) in (VAE.encode, VAE.decode)
    return Root(function, part, f"the {name}", name, ours)


def _options(vae: VAE, part: nn.Module) -> tuple[Any, ...]:
    """What encode or decode depends on beside the caller's modules."""
    state = [*vars(vae).items(), *vars(part).items()]
    return tuple([v for k, v in state if type(v) in SIMPLE and k not in CHANGING])


def _latents(vae: VAE) -> Tensor:
    """An example of z where the caller has none."""
    if vae.decoder_output == "probabilities" and not vae.logit_decoder.decided:
        raise CannotLower(str(vae.logit_decoder))
    first = next((m for m in vae.decoder.modules() if isinstance(m, nn.Linear)), None)
    width = vae.latent_dim or (None if first is None else first.in_features)
    if width is None:
        raise CannotLower("the number of latents is not known before x was encoded; pass x")
    return _zeros(vae.decoder, width)


def _zeros(module: nn.Module, *shape: int) -> Tensor:
    like = next(
        (p for p in module.parameters() if p.is_floating_point()),
        torch.empty(0, dtype=torch.float32, device="cpu"),
    )
    return like.detach().new_zeros(1, *shape)
