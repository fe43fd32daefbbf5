"""Margins of robustness: probabilities with confidence bounds, first-order bounds, attacks."""

from vaefast.certify.best import best
from vaefast.certify.distance import CertifiedDistance, distance
from vaefast.certify.empirical import EmpiricalMargin, empirical_margin
from vaefast.certify.events import Event
from vaefast.certify.guarantee import Guarantee
from vaefast.certify.lipschitz import CertifiedProbability
from vaefast.certify.looks import Budget
from vaefast.certify.margins import margin
from vaefast.certify.probability import RobustProbability, clopper_pearson, robust_probability
from vaefast.certify.result import MarginResult

__all__ = [
    "Budget",
    "CertifiedDistance",
    "CertifiedProbability",
    "EmpiricalMargin",
    "Event",
    "Guarantee",
    "MarginResult",
    "RobustProbability",
    "best",
    "clopper_pearson",
    "distance",
    "empirical_margin",
    "margin",
    "robust_probability",
]
