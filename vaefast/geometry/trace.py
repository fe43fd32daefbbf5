"""The trace of the pullback metric, exact or estimated, with what an estimate may be off by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from vaefast import checks
from vaefast.geometry.estimators import (
    Estimate,
    chi_square_factor,
    hutchinson,
    hutchpp,
    products_of,
    xtrace,
)
from vaefast.geometry.metric import factor
from vaefast.geometry.operators import DISTRIBUTIONS, gaussian, operator, probes_of
from vaefast.geometry.points import Points, evaluate, zeros_said
from vaefast.geometry.spectrum import check_metric
from vaefast.models import VAE
from vaefast.models.context import Context
from vaefast.models.prepare import Prepared, prepare
from vaefast.ops._inputs import check_precision
from vaefast.philox import check_seed
from vaefast.runtime.grad_mode import without_grad
from vaefast.runtime.renamed import renamed

__all__ = ["How", "Trace", "pullback_trace", "trace"]

METHODS = ("auto", "exact", "hutchinson", "hutch++", "xtrace")
LEAST = {"hutch++": 3, "xtrace": 2}  # probes
SKETCHED, IN_TURNS = 5, 12  # products from which Hutch++, and XTrace, err least
GRAM = 2  # products of the exact trace take the time of one with a probe


@dataclass(frozen=True)
class Trace:
    """tr G = ‖J‖_F² at each input.

    Attributes:
        value: [B] float64; unbiased where it is an estimate.
        standard_error: [B] float64, of ``value`` over the probes; 0 where it is exact, NaN where
            one probe does not tell.
        upper: [B] float64, at least tr G with probability ``upper_confidence`` at each input; None
            where none was asked for.
        method: that was taken.
        products: with J or Jᵀ at each input; of the exact trace, what it stands for.
    """

    value: Tensor
    standard_error: Tensor
    upper: Tensor | None
    method: str
    products: int


class How(NamedTuple):
    """How a trace is found, checked."""

    method: str
    probes: int
    distribution: str
    upper_confidence: float | None
    seed: int

    @classmethod
    def checked(
        cls,
        method: str,
        probes: int,
        distribution: str,
        upper_confidence: float | None,
        seed: int,
        precision: str = "ieee",
    ) -> How:
        """The options of :func:`pullback_trace`."""
        checks.option(method, "method", METHODS)
        checks.count(probes, "probes", LEAST.get(method, 1))
        checks.option(distribution, "distribution", DISTRIBUTIONS)
        check_precision(precision)
        if distribution != "gaussian" and method != "hutchinson":
            raise ValueError(
                f'distribution="{distribution}" is for method="hutchinson", got method="{method}"'
            )
        if upper_confidence is not None:
            checks.number(upper_confidence, "upper_confidence")
            cls._check_bound(method, distribution, precision)
            chi_square_factor(probes, upper_confidence)
        return cls(method, probes, distribution, upper_confidence, check_seed(seed))

    @staticmethod
    def _check_bound(method: str, distribution: str, precision: str) -> None:
        if precision != "ieee":
            raise ValueError(
                f'upper_confidence needs precision="ieee", got "{precision}"; '
                "leave it out for an estimate"
            )
        if method != "hutchinson":
            raise ValueError(
                f'upper_confidence needs method="hutchinson", the only estimate with a bound; '
                f'got method="{method}"'
            )
        if distribution != "gaussian":
            raise ValueError(
                'upper_confidence needs distribution="gaussian", the only probes with a bound; '
                f'got distribution="{distribution}"'
            )

    def resolved(self, size: int, exact: int) -> How:
        """With the method that ``"auto"`` stands for, and as many probes as its products allow.

        They are those of Hutch++. Exact where that takes no more time, else what erred least over
        spectra for so many products; docs/performance.md has the measurements.

        Args:
            size: entries of the side that the probes live on.
            exact: products that the exact trace takes.
        """
        if self.method != "auto":
            return self
        products = products_of("hutch++", self.probes, size)
        if exact <= GRAM * products:
            return self._replace(method="exact")
        if products < SKETCHED:
            return self._replace(method="hutchinson", distribution="orthogonal")
        if products < IN_TURNS:
            return self._replace(method="hutch++")
        return self._replace(method="xtrace", probes=products // 3)


@renamed(space="of")
@without_grad
def pullback_trace(
    vae: VAE,
    x: Tensor,
    *,
    of: str = "encoder",
    std: bool = False,
    whiten: bool = False,
    method: str = "auto",
    probes: int = 16,
    distribution: str = "gaussian",
    upper_confidence: float | None = None,
    seed: int = 0,
    index: Tensor | None = None,
    context: Context = None,
) -> Trace:
    """Trace of the pullback metric G(x) at each input, with its standard error.

        tr G = ‖J‖_F²;  of q(z|x) the trace of the Fisher information, Σ_i (‖∂μ_i‖² + 2‖∂σ_i‖²)/σ_i²

    - ``"exact"``: through the m×m matrix whose eigenvalues are G's.
    - ``"hutchinson"``: the mean of ‖Jᵀu_k‖² over K probes.
    - ``"hutch++"``: a third of the probes for a sketch of the range, exact there.
    - ``"xtrace"``: every probe both sketches and estimates, in turns; the best for many probes of
      a falling spectrum, at three products a probe.
    - ``"auto"``: with the products of Hutch++ for K probes, some 5K/3: exact where that takes no
      more time (up to twice as many rows and columns), else Hutchinson with orthogonal probes below
      5 of them, Hutch++ below 12, XTrace from there on.

    Args:
        vae: the VAE, in evaluation mode.
        x: [B, *event] inputs, float.
        of: ``"encoder"``, ``"decoder"``, ``"reconstruction"`` or ``"fisher"``.
        std, whiten: as for :func:`pullback_spectrum`; an estimate of the reconstruction with
            ``std`` takes d products with J_g besides.
        method: as above.
        probes: number K of random vectors; at least 2 for ``"xtrace"``, 3 for ``"hutch++"``.
        distribution: of Hutchinson's probes: ``"gaussian"``; ``"signs"`` (±1), ``"sphere"`` (fixed
            length) and ``"orthogonal"`` (that, orthogonal to each other) have less variance.
        upper_confidence: confidence of ``upper``, Σ_k‖Jᵀu_k‖²/χ²_{K,α} with α = 1 − confidence at
            most P(χ²_K ≤ K); Hutchinson with Gaussian probes only.
        seed: of the probes.
        index: [B] int64, the global number of each input; default ``arange(B)``.
        context: conditions of each input, [B, ...] or a dict of such tensors.

    Returns:
        :class:`Trace`; NaN where x is not finite. A trace of 0 is said in one warning.

    Raises:
        ValueError: unknown option, a combination that has no meaning, or an ``upper_confidence``
            that has no bound.

    Source: mathematics.md 9; Gloeckler et al. 2023 for the Fisher information.
    """
    check_metric(of, std, whiten)
    how = How.checked(method, probes, distribution, upper_confidence, seed)
    prepared = prepare(vae, x, index, context=context, half="widen")
    found = trace(prepared, of, how, std=std, whiten=whiten)
    zeros_said(found.value, of)
    return found


def trace(
    prepared: Prepared, of: str, how: How, *, std: bool = False, whiten: bool = False
) -> Trace:
    """As :func:`pullback_trace`, for what was prepared."""
    exact = _exact_products(prepared, of, std)
    diagonal = prepared.maps.latents if of == "reconstruction" and _moves(prepared, of, std) else 0
    size = prepared.pixels + diagonal if of == "reconstruction" else exact
    how = how.resolved(size, exact - diagonal)
    own = {"whiten": whiten or of == "fisher", "std": std or of == "fisher"}

    def run(points: Points) -> tuple[Tensor, ...]:
        if how.method == "exact":
            value = _exact(points, of, std)
            return value, torch.zeros_like(value)
        return _estimated(points, of, std, how)

    count = None if how.method == "exact" else how.probes
    value, error = evaluate(prepared, of, run, probes=count, **own)
    bound = how.upper_confidence
    upper = None if bound is None else value * how.probes * chi_square_factor(how.probes, bound)
    taken = diagonal + products_of(how.method, how.probes, size)
    return Trace(value, error, upper, how.method, exact if how.method == "exact" else taken)


def _exact_products(prepared: Prepared, of: str, std: bool) -> int:
    """One for each row of J_μ and J_σ, and for each column of J_g."""
    both = _moves(prepared, of, std)
    return prepared.maps.latents * (1 + both + (of == "reconstruction"))


def _moves(prepared: Prepared, of: str, std: bool) -> bool:
    """Whether σ(x) is a part of the metric."""
    return (std or of == "fisher") and prepared.maps.std is not None


def _exact(points: Points, of: str, std: bool) -> Tensor:
    if of == "encoder" and not std:
        return points.maps.mean.row_squares(points.x, points.inv_std).sum(1)
    gram = factor(points.maps, points.x, of, inv_std=points.inv_std, std=std).gram
    return gram.diagonal(dim1=1, dim2=2).sum(1)


def _estimated(points: Points, of: str, std: bool, how: How) -> Estimate:
    op = operator(points, of, std=std)
    if how.method == "hutchinson":
        u = probes_of(points, op.size, how.probes, how.seed, how.distribution)
        return hutchinson(op, u, without_replacement=how.distribution == "orthogonal")
    u = gaussian(points, op.size, how.probes, how.seed)
    return hutchpp(op, u) if how.method == "hutch++" else xtrace(op, u)
