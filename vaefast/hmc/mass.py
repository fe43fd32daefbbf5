"""Masses of the chains: the metric in which a row's posterior looks round."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vaefast.functional.likelihoods import PIXEL_LIKELIHOODS
from vaefast.functional.rows import finite, nan_where_bad
from vaefast.models.joint import JOINT
from vaefast.models.maps import Maps
from vaefast.models.prepare import Prepared
from vaefast.models.vae import VAE

__all__ = [
    "DENSE_UP_TO",
    "MASSES",
    "Metric",
    "check_named",
    "metric_at_mean",
    "pullback",
    "pullback_rows",
]

MASSES = ("unit", "posterior", "pullback", "dense", "warmup")
OF_THE_DECODER = ("pullback", "dense")
DENSE_UP_TO = 64  # latents
PROBES_AT_ONCE = 3  # copies of the Jacobian's columns, in float64, that are alive at once


class Metric(NamedTuple):
    """M of B rows: M⁻¹ = diag(inv_mass), or M⁻¹ = S Sᵀ.

    Args:
        inv_mass: [B, d], the diagonal of M⁻¹; None for unit mass.
        root: S [B, d, d], where M is dense; None elsewhere.
    """

    inv_mass: Tensor | None
    root: Tensor | None = None


def check_named(name: str, latents: int, vae: VAE) -> None:
    """A mass must be one that the model has.

    Raises:
        ValueError: too many latents for a dense mass, or no metric that could be pulled back.
    """
    if name == "dense" and latents > DENSE_UP_TO:
        raise ValueError(
            f'mass="dense" takes at most {DENSE_UP_TO} latents, got {latents}; use "pullback"'
        )
    if name in OF_THE_DECODER and vae.decoder_output == JOINT:
        raise ValueError(
            f'mass="{name}" takes the decoder\'s metric, and a joint density has no decoder; use '
            '"warmup" or "posterior"'
        )
    if name in OF_THE_DECODER and vae.decoder_output == "mean_logvar":
        raise ValueError(
            f'mass="{name}" takes a decoder with one head, got decoder_output="mean_logvar"; '
            'use "warmup" or "posterior"'
        )


def metric_at_mean(name: str, rows: Prepared, mean: Tensor, std: Tensor) -> Metric:
    """The metric that is known before the chains run, in the dtype of ``mean`` [B, d].

    - ``"unit"``: M = I.
    - ``"posterior"``, and where ``"warmup"`` starts: M = diag(σ⁻²), q(z|x) = N(μ, diag(σ²)).
    - ``"pullback"``: the diagonal of M = I + JᵀΛJ.
    - ``"dense"``: all of it.
    """
    if name == "unit":
        return Metric(None)
    if name in ("posterior", "warmup"):
        return Metric(std.square())
    G = pullback_rows(rows, mean)
    if name != "dense":
        return Metric(G.diagonal(dim1=1, dim2=2).reciprocal().to(mean.dtype).contiguous())
    root = _inverse_root(G)
    diagonal = root.square().sum(2)
    return Metric(diagonal.to(mean.dtype), root.to(mean.dtype).contiguous())


def pullback_rows(rows: Prepared, mean: Tensor) -> Tensor:
    """:func:`pullback` of all rows, batch by batch within the memory budget."""
    latents = mean.shape[1]
    cost = rows.maps.decoder.bytes_per_row(mean.element_size(), probes=latents)
    cost += PROBES_AT_ONCE * 8 * latents * rows.pixels
    dtype = rows.x.dtype

    def run(part: Prepared) -> tuple[Tensor, ...]:
        return (pullback(part.maps, mean[part.gather].to(dtype), part.x.flatten(1)),)

    whole = Prepared(rows.maps, rows.x, rows.index, slice(None), rows.dtype)
    return whole.rows(run, cost, generic=rows.maps.generic("decoder"))[0]


def pullback(maps: Maps, z: Tensor, x: Tensor) -> Tensor:
    """I + JᵀΛJ [b, d, d] float64: the prior's precision and the decoder's pullback metric at z.

    J is the Jacobian of z ↦ natural parameters a, Λ = −∂² log p(x|a)/∂a², which in an exponential
    family is Fisher's information; d products with J.

    Args:
        z: [b, d].
        x: [b, D], in z's dtype.
    """
    likelihood, parameters = maps.vae.likelihood, maps.vae.likelihood_params
    unit = torch.eye(z.shape[1], dtype=z.dtype, device=z.device).expand(len(z), -1, -1)
    columns = maps.decoder.jvp(z, unit).double()  # [b, d, D]
    out = maps.decoder.value(z).flatten(1).double()
    own = [torch.as_tensor(p, dtype=torch.float64, device=z.device) for p in parameters]
    second = PIXEL_LIKELIHOODS[likelihood].second(out, x.double(), *own)
    weight = (-second.curvature).clamp(min=0.0).expand_as(out)
    weighted = columns * weight.sqrt().unsqueeze(1)
    return torch.eye(z.shape[1], dtype=torch.float64, device=z.device) + weighted @ weighted.mT


def _inverse_root(metric: Tensor) -> Tensor:
    """S [b, d, d] with S Sᵀ = M⁻¹; NaN where M is not finite, which LAPACK would refuse for all."""
    good = finite(metric)
    eye = torch.eye(metric.shape[1], dtype=metric.dtype, device=metric.device)
    lower = torch.linalg.cholesky(torch.where(good[:, None, None], metric, eye))
    root = torch.linalg.solve_triangular(lower.mT, eye.expand_as(metric), upper=True)
    return nan_where_bad(good, root)[0]
