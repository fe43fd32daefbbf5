"""Local geometry of a VAE at its inputs: Jacobians, their norms, the pullback metric."""

from vaefast.geometry.jacobian import jacobian
from vaefast.geometry.norms import frobenius_norm, spectral_norm
from vaefast.geometry.spectrum import Scores, Spectrum, pullback_spectrum, robustness_scores

__all__ = [
    "Scores",
    "Spectrum",
    "frobenius_norm",
    "jacobian",
    "pullback_spectrum",
    "robustness_scores",
    "spectral_norm",
]
