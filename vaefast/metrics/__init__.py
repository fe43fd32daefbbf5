"""Measures of robustness: image similarity, latent accuracy, likelihood degradation."""

from vaefast.metrics.degradation import likelihood_degradation
from vaefast.metrics.latent_classifier import (
    AdversarialAccuracy,
    LatentClassifier,
    adversarial_accuracy,
)
from vaefast.metrics.msssim import MSSSIM, msssim

__all__ = [
    "MSSSIM",
    "AdversarialAccuracy",
    "LatentClassifier",
    "adversarial_accuracy",
    "likelihood_degradation",
    "msssim",
]
