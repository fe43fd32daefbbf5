"""Margins of robustness: probabilities with confidence bounds, first-order bounds, attacks."""

from vaefast.certify.empirical import EmpiricalMargin, empirical_margin
from vaefast.certify.guarantee import Guarantee
from vaefast.certify.margins import MarginResult, margin
from vaefast.certify.probability import RobustProbability, clopper_pearson, robust_probability

__all__ = [
    "EmpiricalMargin",
    "Guarantee",
    "MarginResult",
    "RobustProbability",
    "clopper_pearson",
    "empirical_margin",
    "margin",
    "robust_probability",
]
