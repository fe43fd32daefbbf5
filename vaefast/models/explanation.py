"""Which fast paths apply to a VAE, and why the others do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vaefast import checks
from vaefast.models import lowering
from vaefast.models.likelihoods import described, within_unit_interval
from vaefast.models.vae import VAE
from vaefast.runtime import backends, batching
from vaefast.types import Network

__all__ = ["Explanation", "Path", "explain"]


@dataclass(frozen=True)
class Path:
    """One part of a VAE: lowered to the fused MLP ops, or evaluated as the module it is.

    Args:
        fast: whether the fused ops take it.
        detail: the widths and activations of the lowered MLP, or the reason why there is none.
    """

    fast: bool
    detail: str

    def __str__(self) -> str:
        return f"{'fast' if self.fast else 'generic':<8} {self.detail}"


@dataclass(frozen=True)
class Explanation:
    """What :func:`explain` found; ``str()`` or ``print`` shows it as a table.

    Args:
        encoder_mean, encoder_logvar, decoder: one :class:`Path` each.
        posterior: the path of hmc: fused where the decoder is and the prior is N(0, I).
        blocks: how the parts that are not fused are evaluated, see :mod:`vaefast.runtime.batching`.
        likelihood: its name, with the Gaussian's standard deviation.
        decoder_output: how the decoder's output becomes natural parameters.
    """

    encoder_mean: Path
    encoder_logvar: Path
    decoder: Path
    posterior: Path
    blocks: str
    likelihood: str
    decoder_output: str

    def __str__(self) -> str:
        rows = {name.replace("_", " "): value for name, value in vars(self).items()}
        return "\n".join(f"{name:<15} {value}" for name, value in rows.items())


def explain(vae: VAE, x: Tensor | None = None) -> Explanation:
    """Say which parts of a VAE run in the fused MLP ops, and why the others do not.

    Args:
        vae: the VAE; nothing in it is changed.
        x: [B, *event]; its first row goes through the VAE once, so that what only a run can tell
            (the event shape, a Sigmoid at the end of a Python ``decode``, "logits" that are
            probabilities) is known.

    Raises:
        TypeError: ``vae`` is no VAE; wrap it with :func:`as_vae`.
    """
    if not isinstance(vae, VAE):
        raise TypeError(f"vae must be a vaefast.VAE, got {type(vae).__name__}; wrap it in as_vae")
    in_unit_interval = False
    if x is not None:
        with torch.no_grad():
            out = vae.decode(vae.encode(checks.batch(x)[:1])[0])
        in_unit_interval = within_unit_interval(out)
    mean, logvar = (
        _path(_of_x(f, x), vae) for f in (lowering.encoder_mean, lowering.encoder_logvar)
    )
    decoder = _path(lowering.decoder, vae)
    posterior = _posterior(vae, decoder)
    fused = mean.fast and (logvar.fast or vae.fixed_std) and posterior.fast
    return Explanation(
        encoder_mean=mean,
        encoder_logvar=logvar,
        decoder=decoder,
        posterior=posterior,
        blocks="none are needed" if fused else batching.described(),
        likelihood=_likelihood(vae),
        decoder_output=_decoder_output(vae, in_unit_interval),
    )


def _of_x(lowered: Callable[[VAE, Tensor], Network], x: Tensor | None) -> Callable[[VAE], Network]:
    return lambda vae: lowered(vae, lowering.example_x(vae) if x is None else x)


def _path(lowered: Callable[[VAE], Network], vae: VAE) -> Path:
    try:
        network = lowered(vae)
    except lowering.CannotLower as error:
        return Path(False, error.reason)
    if not (support := backends.fused(network, network.weights[0])):
        return Path(False, f"lowers to {len(network.layers)} layers, but {support.reason}")
    widths = [network.in_features, *(layer.out_features for layer in network.parsed())]
    return Path(True, f"{'-'.join(map(str, widths))}, {' '.join(network.activations)}")


def _posterior(vae: VAE, decoder: Path) -> Path:
    if vae.prior is not None:
        return Path(False, "the prior is not N(0, I): autograd for its gradient")
    if not decoder.fast:
        return Path(False, "autograd through the decoder, fused likelihood and leapfrog around it")
    return Path(True, "likelihood, gradient and trajectory in one op; prior N(0, I)")


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
