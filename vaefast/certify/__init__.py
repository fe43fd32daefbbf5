"""Margins of robustness: probabilities with confidence bounds, first-order bounds, attacks."""

from vaefast.certify.best import best
from vaefast.certify.distance import CertifiedDistance, distance
from vaefast.certify.empirical import EmpiricalMargin, empirical_margin
from vaefast.certify.events import Event
from vaefast.certify.families import (
    OrderStatistics,
    band,
    band_width,
    binomial_p_values,
    holm,
    order_statistics,
    simultaneous_bounds,
)
from vaefast.certify.guarantee import Guarantee
from vaefast.certify.inputs_at import (
    CertifiedInputs,
    certified_at,
    drawn_distances,
    required_at,
)
from vaefast.certify.lipschitz import CertifiedProbability
from vaefast.certify.looks import Budget
from vaefast.certify.margins import margin
from vaefast.certify.probability import RobustProbability, clopper_pearson, robust_probability
from vaefast.certify.result import MarginResult
from vaefast.certify.several import robust_probabilities

__all__ = [
    "Budget",
    "CertifiedDistance",
    "CertifiedInputs",
    "CertifiedProbability",
    "EmpiricalMargin",
    "Event",
    "Guarantee",
    "MarginResult",
    "OrderStatistics",
    "RobustProbability",
    "band",
    "band_width",
    "best",
    "binomial_p_values",
    "certified_at",
    "clopper_pearson",
    "distance",
    "drawn_distances",
    "empirical_margin",
    "holm",
    "margin",
    "order_statistics",
    "required_at",
    "robust_probabilities",
    "robust_probability",
    "simultaneous_bounds",
]
