"""Local geometry of a VAE at its inputs: Jacobians, their norms, the pullback metric."""

from vaefast.geometry.jacobian import jacobian
from vaefast.geometry.norms import frobenius_norm, spectral_norm
from vaefast.geometry.scores import Scores, robustness_scores
from vaefast.geometry.spectrum import Spectrum, pullback_spectrum
from vaefast.geometry.trace import Trace, pullback_trace

__all__ = [
    "Scores",
    "Spectrum",
    "Trace",
    "frobenius_norm",
    "jacobian",
    "pullback_spectrum",
    "pullback_trace",
    "robustness_scores",
    "spectral_norm",
]
