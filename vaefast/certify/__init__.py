"""Margins of robustness: probabilities with confidence bounds, first-order bounds, attacks."""

from vaefast.certify.best import best
from vaefast.certify.empirical import EmpiricalMargin, empirical_margin
from vaefast.certify.events import Event
from vaefast.certify.guarantee import Guarantee
from vaefast.certify.lipschitz import CertifiedProbability
from vaefast.certify.margins import MarginResult, margin
from vaefast.certify.probability import RobustProbability, clopper_pearson, robust_probability

__all__ = [
    "CertifiedProbability",
    "EmpiricalMargin",
    "Event",
    "Guarantee",
    "MarginResult",
    "RobustProbability",
    "best",
    "clopper_pearson",
    "empirical_margin",
    "margin",
    "robust_probability",
]
