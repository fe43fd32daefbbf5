"""``as_vae``: any module that encodes and decodes, as a VAE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from vaefast import checks
from vaefast.models import adapters
from vaefast.models.calls import check_event_shape
from vaefast.models.encoders import DecodeMethod, EncodeMethod, HeadsEncoder, require_module
from vaefast.models.groups import Hierarchical
from vaefast.models.results import ENCODER_OUTPUTS
from vaefast.models.vae import VAE

__all__ = ["ModuleVAE", "as_vae"]

DEFAULTS: dict[str, Any] = {
    "likelihood": "bernoulli",
    "obs_std": None,
    "prior": None,
    "decoder_output": None,
    "event_shape": None,
    "encoder_output": None,
    "dispersion": None,
}
HEADS = (  # mean, scale, what the scale is, trunk
    ("fc_mu", "fc_var", "logvar", "encoder"),
    ("fc_mu", "fc_logvar", "logvar", "encoder"),
    ("encoder_mean", "encoder_logvar", "logvar", None),
    ("encoder_mean", "encoder_std_dev", "std", None),
    ("encoder_mean", "gamma", "std", None),
)


class ModuleVAE(VAE):
    """A VAE of one module that encodes and one that decodes: what adapters build.

    Args:
        encoder: module, [n, *event] to (mean, logvar), each [n, *latent_shape].
        decoder: module, [n, *latent_shape] to [n, *event] or [n, D].
        options: as for :class:`VAE`, and ``encoder_output``.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, **options: Any) -> None:
        nn.Module.__init__(self)
        self._assemble(encoder, decoder, **(DEFAULTS | options))


def as_vae(
    module: nn.Module,
    *,
    likelihood: str | None = None,
    obs_std: float | Tensor | None = None,
    prior: Any = None,
    decoder_output: str | None = None,
    encoder_output: str | None = None,
    event_shape: Sequence[int] | None = None,
    dispersion: float | Tensor | None = None,
) -> VAE:
    """A :class:`VAE` around any module that encodes and decodes.

    Models of known libraries go through their adapter (:mod:`vaefast.integrations`), which knows
    their conventions. Any other module needs ``encode`` or ``encoder``, and ``decode`` or
    ``decoder``: methods or modules. What they return is read by its shape: (mean, logvar) or
    (z, mean, logvar), a dict or object with tensors of such names, a ``torch.distributions``
    Normal; a tensor, the first of a tuple, ``.reconstruction`` or ``.sample``.

    Args:
        module: is shared, not copied. A VAE is returned as it is.
        likelihood: as for :class:`VAE`; by default "bernoulli", or that of a VAE that is given.
        obs_std: as for :class:`VAE`; by default 1.0, or that of a VAE that is given.
        prior, decoder_output, event_shape, dispersion: as for :class:`VAE`.
        encoder_output: what the encoder's second result is: "logvar", "std", "var" or "logstd".
            By default what its name says, "logvar" where it has none.

    Raises:
        TypeError: ``module`` is no ``nn.Module`` or lacks a part, or a library's model has no
            Gaussian posterior.
        ValueError: as for :class:`VAE`, or the options contradict a VAE that is given.
    """
    options: dict[str, Any] = {
        "likelihood": likelihood,
        "obs_std": obs_std,
        "prior": prior,
        "decoder_output": decoder_output,
        "encoder_output": encoder_output,
        "event_shape": None if event_shape is None else check_event_shape(event_shape),
        "dispersion": dispersion,
    }
    given = {name: value for name, value in options.items() if value is not None}
    if encoder_output is not None:
        checks.option(encoder_output, "encoder_output", ENCODER_OUTPUTS)
    if isinstance(module, VAE):
        _check_agreement(module, given)
        return module
    require_module(module, "module")
    adapter = adapters.find(module)
    return _wrap(module, given) if adapter is None else adapter.wrap(module, given)


def _wrap(module: nn.Module, given: dict[str, Any]) -> VAE:
    encoder, decoder = _encoder(module, given), _decoder(module, given)
    if encoder is None or decoder is None:
        _say_what_is_missing(module, encoder is None, decoder is None)
    assert encoder is not None
    assert decoder is not None
    return ModuleVAE(encoder, decoder, **given)


def _encoder(module: nn.Module, given: dict[str, Any]) -> nn.Module | None:
    output = given.get("encoder_output")
    if callable(getattr(module, "encode", None)):
        return EncodeMethod(module, output)
    for owner in (module, getattr(module, "model", None)):
        for mean, scale, kind, trunk in HEADS:
            needed = [name for name in (mean, scale, trunk) if name is not None]
            if isinstance(owner, nn.Module) and all(_has(owner, name) for name in needed):
                return HeadsEncoder(owner, mean, scale, output or kind, trunk)
    if callable(getattr(module, "encoder", None)):
        return EncodeMethod(module, output, "encoder")
    return None


def _decoder(module: nn.Module, given: dict[str, Any]) -> nn.Module | None:
    """The decoding module: a plain one as it is, so that it can be lowered."""
    for owner in (module, getattr(module, "model", None)):
        for name in ("decode", "decoder"):
            decode = getattr(owner, name, None)
            if isinstance(decode, nn.Sequential):
                return decode
            if callable(decode) and isinstance(owner, nn.Module):
                output, likelihood = given.get("decoder_output"), given.get("likelihood")
                pair = likelihood == "gaussian" or output == "mean_dispersion"
                return DecodeMethod(owner, output, pair, name)
    return None


def _has(owner: nn.Module, name: str) -> bool:
    return getattr(owner, name, None) is not None


def _say_what_is_missing(module: nn.Module, encode: bool, decode: bool) -> None:
    if isinstance(module, Hierarchical):
        raise TypeError(
            f"module must have one Gaussian posterior, {type(module).__name__} has groups of "
            "latents; take hmc.sample_groups, hmc.defend_groups or attacks.latent_groups"
        )
    inner = getattr(module, "module", None)  # of DataParallel, AveragedModel and the like
    if isinstance(inner, nn.Module) and callable(getattr(inner, "encode", None)):
        kind = type(module).__name__
        raise TypeError(f"{kind} wraps a module that has encode and decode; pass model.module")
    lacks = " and ".join(
        name for name, is_missing in (("encode", encode), ("decode", decode)) if is_missing
    )
    raise TypeError(
        f"module must have encode(x) -> (mean, logvar) and decode(z), {type(module).__name__} "
        f"lacks {lacks}, and forward(x) alone gives no posterior; build vaefast.VAE("
        "encoder_mean=, encoder_logvar=, decoder=) from its parts, or add the two methods"
    )


def _check_agreement(vae: VAE, given: dict[str, Any]) -> None:
    """No option that was given contradicts the VAE."""
    for name, value in given.items():
        own = getattr(vae, "_dispersion" if name == "dispersion" else name)
        tensors = isinstance(value, Tensor) and isinstance(own, Tensor)
        if value is not own and not (value.equal(own) if tensors else value == own):
            raise ValueError(f"module is a VAE with {name} {own!r} already, got {value!r}")
