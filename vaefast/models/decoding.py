"""One or two heads of a decoder: a mean, or a Gaussian's mean and log-variance."""

from __future__ import annotations

from typing import Any

from torch import Tensor

__all__ = ["as_pair", "like_mean"]

PAIRS = {"mean_logvar": "(mean, logvar)", "mean_dispersion": "(mean, dispersion)"}


def as_pair(result: Any, output: str, is_open: bool) -> tuple[Any, Tensor | None]:
    """The heads that count: the second is None where it is not taken as a log-variance.

    Args:
        result: a tensor, or two.
        output: the VAE's decoder_output, of which "mean_logvar" and "mean_dispersion" are two.
        is_open: whether a second tensor of the mean's size, or a lone number, is taken as one.

    Raises:
        TypeError: two heads were promised and one came.
    """
    if isinstance(result, tuple) and all(isinstance(part, Tensor) for part in result):
        mean, second = result
        taken = output in PAIRS or (is_open and second.numel() in (1, mean.numel()))
        return mean, second if taken else None
    if output in PAIRS:
        raise TypeError(
            f'decode(z) must return {PAIRS[output]} with decoder_output "{output}", got '
            f"{type(result).__name__}"
        )
    return result, None


def like_mean(logvar: Tensor, mean: Tensor) -> Tensor:
    """The log-variance in the mean's shape; a lone number or one per event is expanded."""
    if logvar.numel() == mean.numel():
        return logvar.reshape(mean.shape)
    return logvar.expand_as(mean)
