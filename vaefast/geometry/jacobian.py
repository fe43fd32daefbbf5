"""Full Jacobians of a VAE's maps."""

from __future__ import annotations

from torch import Tensor

from vaefast.geometry.metric import units
from vaefast.geometry.points import Points, check_map, evaluate
from vaefast.models import VAE
from vaefast.models.context import Context
from vaefast.models.prepare import prepare
from vaefast.runtime import memory
from vaefast.runtime.grad_mode import without_grad
from vaefast.runtime.renamed import renamed

__all__ = ["jacobian"]


@renamed(space="of")
@without_grad
def jacobian(
    vae: VAE,
    x: Tensor,
    *,
    of: str = "encoder",
    whiten: bool = False,
    index: Tensor | None = None,
    context: Context = None,
) -> Tensor:
    """The Jacobian of a map of the VAE at each input, ∂output/∂input.

    Equivalent to: ``torch.stack([torch.autograd.functional.jacobian(
    lambda v: vae.encode(v[None])[0][0], v) for v in x])`` for the encoder.

    Args:
        vae: the VAE, in evaluation mode.
        x: [B, *event] inputs, float.
        of: ``"encoder"`` (x ↦ μ(x)), ``"decoder"`` (z ↦ g(z) at z = μ(x)) or
            ``"reconstruction"`` (x ↦ g(μ(x))).
        whiten: divide row i by σ_i(x); encoder only.
        index: [B] int64, the global number of each input; default ``arange(B)``.
        context: conditions of each input, [B, ...] or a dict of such tensors.

    Returns:
        In x's dtype: [B, d, *event] for the encoder, [B, *event, d] for the decoder,
        [B, *event, *event] for the reconstruction; NaN where x is not finite.

    Raises:
        MemoryError: the result exceeds the memory budget; the norms and spectra do not need it.
        ValueError: unknown ``of``, ``whiten`` without the encoder.
    """
    check_map(of, whiten)
    prepared = prepare(vae, x, index, context=context, half="widen")
    event, pixels, latents = x.shape[1:], prepared.pixels, prepared.maps.latents
    rows = latents if of == "encoder" else pixels
    columns = latents if of == "decoder" else pixels
    memory.require_fits(
        len(x) * rows * columns * x.element_size(),
        f"the Jacobians [{len(x)}, {rows}, {columns}]",
        "pass fewer inputs, use frobenius_norm, spectral_norm or pullback_spectrum",
    )
    (full,) = evaluate(prepared, of, lambda points: (_rows(points, of),), whiten=whiten)
    full = full.to(x.dtype)
    output = [latents] if of == "encoder" else event
    return full.reshape(len(x), *output, *([latents] if of == "decoder" else event))


def _rows(points: Points, of: str) -> Tensor:
    """J [b, m, n]."""
    maps, x = points.maps, points.x
    if of != "encoder":
        z = maps.mean.value(x)
        pixels = maps.pixels.jvp(z, units(z, z.shape[1])).mT  # [b, D, d]
        if of == "decoder":
            return pixels
    mean = maps.mean.vjp(x, units(x, maps.mean.outputs))  # [b, d, D]
    if of == "reconstruction":
        return pixels @ mean
    return mean if points.inv_std is None else points.inv_std.unsqueeze(-1) * mean
