"""The table of results: one row per input, every column with its unit and meaning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vaefast.certify import Guarantee

__all__ = [
    "ATTACK_COLUMNS",
    "INPUT_COLUMNS",
    "Column",
    "Description",
    "columns",
    "describe_input",
    "in_scale",
    "write_parquet",
]


class Description(NamedTuple):
    unit: str
    meaning: str


@dataclass(frozen=True)
class Column:
    """A named column of B values; ``more`` is what else its metadata say, by name."""

    name: str
    unit: str
    meaning: str
    values: np.ndarray
    more: Mapping[str, str] = field(default_factory=dict)


FIRST_ORDER = Guarantee.FIRST_ORDER.value
NOT_ADAPTIVE = "not attacked adaptively"
ENTRIES = ("pixels", "entries")  # what inputs that are no images have

INPUT_COLUMNS = {
    "index": Description("", "number of the input in the test set"),
    "failed": Description("", "some result of this row is not finite; it is in no aggregate"),
    "label": Description("class", "the label that came with the data"),
    "predicted": Description("class", "class of the clean input by a linear classifier on μ(x)"),
    "reconstruction_error": Description("pixel scale", "‖g(μ(x)) − x‖₂ over all pixels"),
    "robust_probability": Description(
        "probability", "estimate of P(‖g(μ+σ⊙η) − g(μ)‖₂ ≤ r) without any attack"
    ),
    "robust_probability_lower": Description(
        "probability", "its Clopper-Pearson lower bound, wrong with probability alpha"
    ),
    "margin_first_order": Description(
        "pixel scale, ℓ2",
        f"min σ·Φ⁻¹(p)/‖J‖_F, p the lower bound; {FIRST_ORDER}; 0 where it abstains",
    ),
    "margin_whitened": Description(
        "pixel scale, ℓ2",
        f"Φ⁻¹(p)/‖diag(1/σ)J‖₂, p the lower bound; {FIRST_ORDER}; 0 where it abstains",
    ),
    "margin_certified": Description(
        "pixel scale, ℓ2",
        "R such that P(‖g(μ(x')+σ(x')⊙η) − g(μ)‖₂ ≤ r) > ½ for all ‖x'−x‖₂ ≤ R; "
        f"{Guarantee.LOCAL.value}; 0 where nothing is certified, NaN where none was computed",
    ),
    "margin_empirical": Description(
        "pixel scale, ℓ2",
        "smallest ‖δ‖₂ at which an attack left at most half of the reconstructions within r, at "
        "least the true margin; infinite where none was found, NaN where none was searched for",
    ),
    "margin_abstain": Description(
        "", "the lower bound of the probability is at most ½, or the Jacobian is 0"
    ),
    "encoder_frobenius_norm": Description(
        "latent per pixel scale", "‖J‖_F, J = ∂μ/∂x: root of the summed squared sensitivities"
    ),
    "encoder_spectral_norm": Description(
        "latent per pixel scale", "‖J‖₂: the furthest that a unit change of x moves μ"
    ),
    "encoder_spectral_norm_whitened": Description(
        "std per pixel scale", "‖diag(1/σ)J‖₂: the same in units of the posterior's own spread"
    ),
    "reconstruction_spectral_norm": Description(
        "pixel per pixel scale", "‖∂g(μ(x))/∂x‖₂: the furthest a unit change moves the output"
    ),
    "pullback_spectral_radius": Description(
        "latent² per pixel scale²", "largest eigenvalue of the encoder's pullback metric"
    ),
    "pullback_entropy": Description(
        "nats", "von Neumann entropy of that metric: how many directions it spreads over"
    ),
    "msssim_resampled": Description(
        "0 to 1", "similarity of two reconstructions of the clean input from independent samples"
    ),
    "clean_msssim_defended": Description(
        "0 to 1", "similarity of the clean input's reconstruction before and after the defence"
    ),
    "distance_resampled": Description(
        "pixel scale", "‖·‖₂ of two reconstructions of the clean input from independent samples"
    ),
    "clean_distance_defended": Description(
        "pixel scale", "‖·‖₂ of the clean input's reconstruction before and after the defence"
    ),
    "clean_predicted_defended": Description("class", "class of the clean input after the defence"),
    "clean_defence_accept_rate": Description("share", "accepted HMC proposals, clean input"),
    "clean_defence_divergent": Description("count", "divergent HMC transitions, clean input"),
}

ATTACK_COLUMNS = {
    "objective": Description(
        "nats, latent² or pixel scale", "what the attack maximised, at its result"
    ),
    "perturbation_norm": Description("pixel scale", "length of the change, in the attack's norm"),
    "failed": Description("", "the attack or the defence of this row gave nothing finite"),
    "msssim_input": Description("0 to 1", "similarity of the clean and the adversarial input"),
    "msssim": Description("0 to 1", "similarity of their reconstructions, no defence"),
    "msssim_defended": Description(
        "0 to 1", f"the same after the defence of the adversarial input ({NOT_ADAPTIVE})"
    ),
    "distance_input": Description("pixel scale", "‖·‖₂ of the clean and the adversarial input"),
    "distance": Description("pixel scale", "‖·‖₂ of their reconstructions, no defence"),
    "distance_defended": Description(
        "pixel scale", f"the same after the defence of the adversarial input ({NOT_ADAPTIVE})"
    ),
    "likelihood_degradation": Description(
        "relative", "|log p(x|z*) − log p(x|z)| / |log p(x|z)|, z* from the adversarial input"
    ),
    "predicted": Description("class", "class of the adversarial input"),
    "predicted_defended": Description("class", f"class after the defence ({NOT_ADAPTIVE})"),
    "defence_accept_rate": Description("share", "accepted HMC proposals"),
    "defence_divergent": Description("count", "divergent HMC transitions"),
}


def describe_input(
    name: str, guarantee: str, *, images: bool = True, certificate: str | None = None
) -> Description:
    """Of ``INPUT_COLUMNS``; a margin's meaning says its own guarantee."""
    unit, meaning = INPUT_COLUMNS[name]
    meaning = meaning.replace(FIRST_ORDER, str(guarantee))
    meaning = meaning.replace(Guarantee.LOCAL.value, str(certificate or Guarantee.LOCAL))
    return Description(in_scale(unit, images), meaning if images else meaning.replace(*ENTRIES))


def in_scale(unit: str, images: bool) -> str:
    """Inputs that are no images have a data scale in place of the pixel scale."""
    return unit if images else unit.replace("pixel", "data")


def columns(
    per_input: dict[str, np.ndarray],
    per_attack: dict[str, dict[str, np.ndarray]],
    objective_units: dict[str, str] | None = None,
    *,
    guarantee: Guarantee = Guarantee.FIRST_ORDER,
    images: bool = True,
    certificate: Guarantee | None = None,
    form: str = "",
    why_form: str = "",
) -> list[Column]:
    """The columns in the order of their descriptions; those that were not measured are absent.

    Args:
        per_input: values by name of ``INPUT_COLUMNS``.
        per_attack: for every attack's name, values by name of ``ATTACK_COLUMNS``.
        objective_units: for every attack's name, the unit of its objective.
        guarantee: what the margins of first order promise.
        certificate: what the certified ones do.
        form, why_form: of the encoder's bound behind these, as of a :class:`MarginResult`.
        images: whether the inputs are; else their scale is called so.
    """
    units = objective_units or {}
    options: dict[str, Any] = {"images": images, "certificate": certificate}
    bound = {name: text for name, text in (("form", form), ("why_form", why_form)) if text}
    more = {"margin_certified": bound}
    result = [
        Column(
            name, *describe_input(name, guarantee, **options), per_input[name], more.get(name, {})
        )
        for name in INPUT_COLUMNS
        if name in per_input
    ]
    for attack, values in per_attack.items():
        result += [
            Column(
                f"{attack}_{name}",
                units.get(attack, unit) if name == "objective" else in_scale(unit, images),
                meaning,
                values[name],
            )
            for name, (unit, meaning) in ATTACK_COLUMNS.items()
            if name in values
        ]
    return result


def write_parquet(path: Path, table: Sequence[Column]) -> None:
    """The table with unit and meaning as metadata of each field."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays = [pa.array(column.values) for column in table]
    schema = [
        pa.field(c.name, array.type, metadata={"unit": c.unit, "meaning": c.meaning, **c.more})
        for c, array in zip(table, arrays, strict=True)
    ]
    pq.write_table(pa.Table.from_arrays(arrays, schema=pa.schema(schema)), path)
