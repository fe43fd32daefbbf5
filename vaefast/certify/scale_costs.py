"""What a change of scale costs, tabulated: the best proof of each entry, for cells by the thousand.

Of a quantile q = Φ⁻¹(p) and a change E of log σ, D*(q, E) is a shift that is tolerated. The cost
q − D* never grows with q: of Q(A) ≥ Φ(q + h) a shift by at most h leaves Φ(q) (Neyman, Pearson),
and from there the rest is tolerated as at q. So an entry holds for all larger q and all smaller E,
and a coarse table loses little. :func:`vaefast.certify.tolerance.tolerates` proves every entry.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vaefast.certify.tolerance import scale_cost

__all__ = ["cost_at"]

NONE = 9999  # no proof
# fmt: off
QUANTILES = (0.15, 0.3, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2, 2.25, 2.5, 3, 3.5)
SCALES = (
    0.01, 0.0117, 0.0137, 0.016, 0.0187, 0.0219, 0.0257, 0.03, 0.0351, 0.0411, 0.0481, 0.0562,
    0.0658, 0.077, 0.0901, 0.1054, 0.1233, 0.1443, 0.1688, 0.1975, 0.2311, 0.2703, 0.3163, 0.3701,
    0.433, 0.5066, 0.5927,
)
COSTS = (  # in thousandths, a row per quantile
    (
        16, 19, 22, 26, 31, 35, 37, 39, 42, 46, 53, 62, 78, 108, 9999, 9999, 9999, 9999, 9999,
        9999, 9999, 9999, 9999, 9999, 9999, 9999, 9999,
    ),
    (
        10, 12, 14, 16, 19, 22, 26, 32, 38, 47, 58, 72, 81, 89, 101, 118, 145, 195, 9999, 9999,
        9999, 9999, 9999, 9999, 9999, 9999, 9999,
    ),
    (
        7, 8, 10, 11, 13, 16, 19, 22, 27, 32, 40, 49, 61, 77, 99, 130, 146, 165, 193, 238, 319,
        9999, 9999, 9999, 9999, 9999, 9999,
    ),
    (
        6, 6, 8, 9, 10, 12, 14, 17, 20, 25, 30, 37, 46, 58, 73, 94, 123, 165, 211, 235, 271, 328,
        426, 9999, 9999, 9999, 9999,
    ),
    (
        5, 5, 6, 7, 9, 10, 12, 14, 17, 20, 25, 31, 38, 48, 60, 77, 101, 133, 181, 251, 292, 329,
        386, 480, 660, 9999, 9999,
    ),
    (
        4, 5, 6, 6, 7, 9, 10, 12, 15, 18, 22, 27, 33, 41, 52, 67, 87, 115, 155, 214, 309, 358,
        401, 466, 572, 770, 9999,
    ),
    (
        4, 4, 5, 6, 7, 8, 9, 11, 13, 16, 19, 24, 30, 37, 47, 60, 78, 103, 139, 192, 273, 400, 434,
        485, 564, 697, 951,
    ),
    (
        4, 4, 5, 5, 6, 7, 9, 10, 12, 15, 18, 22, 27, 34, 43, 55, 72, 94, 127, 175, 250, 379, 477,
        520, 584, 688, 865,
    ),
    (
        3, 4, 4, 5, 6, 7, 8, 10, 11, 14, 17, 20, 25, 32, 40, 51, 67, 88, 118, 163, 234, 350, 528,
        565, 619, 705, 846,
    ),
    (
        3, 4, 4, 5, 6, 6, 8, 9, 11, 13, 16, 19, 24, 30, 38, 48, 63, 83, 112, 154, 220, 330, 583,
        616, 663, 738, 857,
    ),
    (
        3, 4, 4, 5, 5, 6, 7, 9, 10, 12, 15, 18, 23, 28, 36, 46, 60, 79, 106, 146, 209, 315, 556,
        672, 715, 781, 884,
    ),
    (
        3, 4, 4, 5, 5, 6, 7, 8, 10, 11, 14, 17, 21, 26, 33, 42, 55, 73, 98, 135, 193, 294, 512,
        753, 831, 884, 968,
    ),
    (
        4, 4, 4, 5, 5, 6, 7, 8, 9, 11, 14, 16, 20, 25, 32, 40, 52, 69, 93, 128, 183, 277, 482,
        753, 903, 1004, 1074,
    ),
)
# fmt: on


def cost_at(quantile: Tensor, scale: Tensor) -> Tensor:
    """What a change of log σ by at most ``scale`` takes off a quantile: Δ < q − cost is tolerated.

    The smaller of the table's and of "mean first", which knows no quantile.

    Args:
        quantile: q, float64, any shape.
        scale: E, like it.
    """
    quantiles, scales, costs = (
        torch.tensor(values, dtype=torch.float64, device=quantile.device)
        for values in (QUANTILES, SCALES, COSTS)
    )
    costs = costs.mul_(1e-3).cummin(0).values
    beyond = torch.full_like(costs[:1], NONE)
    costs = torch.cat([beyond, costs])  # of quantiles below the first
    costs = torch.cat([costs, torch.full_like(costs[:, :1], NONE)], dim=1)
    row = torch.searchsorted(quantiles, quantile.contiguous(), right=True)
    column = torch.searchsorted(scales, scale.contiguous())
    return torch.minimum(costs[row, column], scale_cost(scale))
