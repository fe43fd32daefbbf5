"""Which parts of a VAE the fused ops evaluate, and what stands in the way of the others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vaefast import checks
from vaefast.functional.counts import COUNTS
from vaefast.models.calls import images
from vaefast.models.context import Context
from vaefast.models.encoder_bounds import described_bounds
from vaefast.models.likelihoods import described, squashed, within_unit_interval
from vaefast.models.maps import Maps
from vaefast.models.mixture import closed_form
from vaefast.models.one_function import violation
from vaefast.models.prepare import check_vae, prepare
from vaefast.models.products import Map
from vaefast.models.vae import VAE
from vaefast.runtime import backends, batching
from vaefast.runtime.grad_mode import without_grad

__all__ = ["Explanation", "Part", "explain"]

UNKNOWN = "not known without an input; pass x"


@dataclass(frozen=True)
class Part:
    """One part of a VAE: evaluated by the fused ops, or as the module that it is.

    Args:
        fused: whether the ops take it.
        detail: layers, widths and activations, or what stands in the way.
    """

    fused: bool
    detail: str

    def __str__(self) -> str:
        return self.detail if self.fused else f"as the module: {self.detail}"


@dataclass(frozen=True)
class Explanation:
    """What :func:`explain` found; ``str()`` or ``print`` shows it as a table.

    Args:
        encoder_mean, encoder_logvar, decoder: one :class:`Part` each.
        posterior: the potential of hmc: fused where the decoder is and the prior is N(0, I).
        ops: the backend that they run on, or "reference" with the reason.
        batches: how modules are given their rows, see :mod:`vaefast.runtime.batching`.
        modules: in which form modules run: eager or compiled, in which memory format and why.
        latents: shape of one latent.
        likelihood: its name, with the Gaussian's standard deviation.
        decoder_output: how the decoder's output becomes natural parameters.
        certificates: which bounds of the encoder ``certify.margin(method="local")`` can take.
        mode: "evaluation", or "training" with the layer that changes with every call; and what
            shows that encode or decode is random or depends on the other rows of a batch.
    """

    encoder_mean: Part
    encoder_logvar: Part
    decoder: Part
    posterior: Part
    ops: str
    batches: str
    modules: str
    latents: str
    likelihood: str
    decoder_output: str
    certificates: str
    mode: str

    def __str__(self) -> str:
        rows = {name.replace("_", " "): value for name, value in vars(self).items()}
        return "\n".join(f"{name:<15} {value}" for name, value in rows.items())


@without_grad
def explain(vae: VAE, x: Tensor | None = None, *, context: Context = None) -> Explanation:
    """Say which parts of a VAE run in the fused ops, and what stands in the way of the others.

    Args:
        vae: the VAE; nothing in it is changed, in training mode neither.
        x: [B, *event]; its first two rows go through the VAE once. By default one blank row, of
            a VAE whose event shape is known.
        context: conditions of each input, [B, ...] or a dict of such tensors.

    Raises:
        TypeError: ``vae`` is no VAE; wrap it with :func:`as_vae`.
    """
    mode, given = _mode(check_vae(vae)), x is not None
    x = _blank(vae) if x is None else images(x)
    ops = backends.described(_like(vae))  # warns of a missing backend
    with _unchanged(vae) as modes:
        found = _unknown(vae) if x is None else _explained(vae, x, context, given)
        if x is not None and len(x) and mode == "evaluation":
            mode = _tried(vae, x, context, modes)
    return Explanation(**found, ops=ops, mode=mode)


def _mode(vae: VAE) -> str:
    try:
        checks.eval_mode(vae)
    except RuntimeError as error:
        return f"training: {error}"
    return "evaluation"


def _tried(vae: VAE, x: Tensor, context: Context, modes: dict[nn.Module, bool]) -> str:
    """The mode by what encode and decode do, where no layer tells by its class."""
    rows = x[:16].detach().nan_to_num(0.0, 0.0, 0.0)
    if not bool(rows.any()):  # a blank row, of which dropout leaves what it was
        generator = torch.Generator(device="cpu").manual_seed(0)
        drawn = torch.rand(rows.shape, generator=generator, dtype=torch.float32, device="cpu")
        rows = drawn.to(rows)
    if found := violation(vae, rows, context):
        return f"evaluation, but {found}"
    if not any(modes.values()):
        return "evaluation"
    with _buffers_kept(vae):
        for layer, training in modes.items():
            layer.training = training
        found = violation(vae, rows, context)
        for layer in modes:
            layer.training = False
    return f"training: {found}; call model.eval() first" if found else "evaluation"


@contextmanager
def _buffers_kept(vae: VAE) -> Iterator[None]:
    before = [(buffer, buffer.clone()) for buffer in vae.buffers()]
    try:
        yield
    finally:
        for buffer, value in before:
            buffer.data.copy_(value)


def _explained(vae: VAE, x: Tensor, context: Context, given: bool) -> dict:
    prepared = prepare(vae, x, context=context, trusted=True)
    maps = prepared.maps
    posterior = _posterior(vae, maps.decoder)
    first = prepared.at(slice(0, 1)).maps
    in_unit_interval = (
        given
        and len(x) > 0
        and within_unit_interval(first.decode_by_module(first.encode_by_module(prepared.x[:1])[0]))
    )
    fused = posterior.fused and not maps.generic("encoder")
    return {
        "encoder_mean": _part(maps.mean),
        "encoder_logvar": _logvar(maps),
        "decoder": _part(maps.decoder),
        "posterior": posterior,
        "batches": "none are needed" if fused else batching.described(),
        "modules": _modules(maps),
        "latents": _shape(getattr(vae, "latent_shape", None) or (maps.latents,)),
        "likelihood": _likelihood(vae),
        "decoder_output": _decoder_output(vae, in_unit_interval),
        "certificates": described_bounds(maps),
    }


def _unknown(vae: VAE) -> dict:
    names = ("encoder_mean", "encoder_logvar", "decoder", "posterior")
    return {
        **dict.fromkeys(names, Part(False, UNKNOWN)),
        "batches": batching.described(),
        "modules": UNKNOWN,
        "latents": UNKNOWN,
        "likelihood": _likelihood(vae),
        "decoder_output": _decoder_output(vae, False),
        "certificates": UNKNOWN,
    }


def _blank(vae: VAE) -> Tensor | None:
    if vae.event_shape is None:
        return None
    like = _like(vae)  # perhaps a wrapper, which makes no others
    return torch.zeros(1, *vae.event_shape, dtype=like.dtype, device=like.device)


def _like(vae: VAE) -> Tensor:
    """One of its weights, or what stands for them."""
    weights = (p for p in checks.parameters(vae) if p.is_floating_point())
    return next(weights, torch.empty(0, device="cpu", dtype=torch.float32))


@contextmanager
def _unchanged(vae: VAE) -> Iterator[dict[nn.Module, bool]]:
    """Evaluation mode and no warnings inside, and the VAE as it was afterwards.

    Gives the layers' own modes.
    """
    modes = {layer: layer.training for layer in checks.layers(vae)}
    before = dict(vars(vae))  # also what the first input tells: shapes, and which doubts are left
    try:
        vae._doubts = ()
        for layer in modes:
            layer.training = False
        with torch.random.fork_rng(_devices(vae)):
            yield modes
    finally:
        for layer, training in modes.items():
            layer.training = training
        vars(vae).update(before)


def _devices(vae: VAE) -> list[torch.device]:
    return list({p.device for p in checks.parameters(vae) if p.device.type == "cuda"})


def _part(part: Map) -> Part:
    net = part.lowered
    if net is None:
        return Part(False, part.why_not)
    count = f"{len(net.layers)} layer{'s' if len(net.layers) > 1 else ''}"
    widths = "-".join(map(str, [net.in_features, *(layer.out_features for layer in net.parsed())]))
    return Part(True, f"{count}, fused: {widths}, {' '.join(net.activations)}")


def _logvar(maps: Maps) -> Part:
    if maps.scale is None:
        return Part(True, "one σ for all inputs")
    return _part(maps.scale)


def _posterior(vae: VAE, decoder: Map) -> Part:
    if vae.prior is not None:
        return Part(False, _own_prior(vae, decoder))
    if vae.decoder_output == "joint":
        return Part(False, "autograd through log_joint(z, x), fused leapfrog around it")
    if vae.likelihood in COUNTS:
        through = "the decoder's network, fused" if decoder.lowered else "autograd"
        return Part(False, f"{through}, and the likelihood of counts, in torch")
    if decoder.lowered is None:
        return Part(False, "autograd through the decoder, fused likelihood and leapfrog around it")
    if reason := squashed(vae.likelihood, decoder.lowered):
        return Part(False, f"{reason}, autograd gives the gradient")
    return Part(True, "likelihood, gradient and trajectory in one op; prior N(0, I)")


def _own_prior(vae: VAE, decoder: Map) -> str:
    mixed = closed_form(vae) is not None
    gradient = "a closed form" if mixed else "autograd"
    text = f"the prior is not N(0, I), {gradient} gives its gradient"
    fused = decoder.lowered is not None and not squashed(vae.likelihood, decoder.lowered)
    beside = "; on a CPU beside the fused likelihood of the decoder"
    return text + beside if fused else text


def _modules(maps: Maps) -> str:
    """How each part runs that is evaluated as a module."""
    parts = {"encoder": maps.generic("encoder"), "decoder": maps.generic("decoder", "pixels")}
    found = [f"{part} {maps.forms.described(part)}" for part, generic in parts.items() if generic]
    return "; ".join(found) or "none are run"


def _shape(latents: tuple[int, ...]) -> str:
    return "x".join(map(str, latents))


def _likelihood(vae: VAE) -> str:
    own = vae.decoder_output != "mean_logvar"
    return described(vae.likelihood, vae.decoder_output, vae.obs_std if own else None)


def _decoder_output(vae: VAE, in_unit_interval: bool) -> str:
    if vae.decoder_output == "probabilities":
        return f"probabilities; {vae.logit_decoder}"
    if vae.decoder_output == "logits" and vae.logit_decoder.path is not None:
        return (
            f"logits, but the decoder ends in a Sigmoid ({vae.logit_decoder.path!r}); "
            'decoder_output="probabilities" takes them as that'
        )
    if vae.decoder_output == "logits" and in_unit_interval:
        return (
            "logits, but decode returns values in [0, 1]; "
            'decoder_output="probabilities" takes them as that'
        )
    return vae.decoder_output
