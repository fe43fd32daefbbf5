"""results.parquet describes itself, and docs/report.md describes it too."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from vaefast.audit.columns import ATTACK_COLUMNS, INPUT_COLUMNS, columns, write_parquet

DOCS = Path(__file__).parents[2] / "docs" / "report.md"


def test_every_column_is_documented():
    text = DOCS.read_text(encoding="utf-8")
    for name, (unit, meaning) in {**INPUT_COLUMNS, **ATTACK_COLUMNS}.items():
        escaped = meaning.replace("|", "\\|")
        assert f"| `{name}` | {unit} | {escaped} |" in text


def test_parquet_keeps_values_types_units_and_meanings(tmp_path):
    per_input = {"index": np.arange(3), "margin_whitened": np.array([0.0, 0.5, np.inf])}
    attack = {"objective": np.ones(3), "failed": np.array([False, True, False])}
    table = columns(per_input, {"latent_linf_0.1": attack}, {"latent_linf_0.1": "nats"})
    write_parquet(tmp_path / "r.parquet", table)
    read = pq.read_table(tmp_path / "r.parquet")
    assert read.column_names == [
        "index",
        "margin_whitened",
        "latent_linf_0.1_objective",
        "latent_linf_0.1_failed",
    ]
    assert read["margin_whitened"].to_pylist() == [0.0, 0.5, float("inf")]
    assert read["latent_linf_0.1_failed"].to_pylist() == [False, True, False]
    metadata = read.schema.field("latent_linf_0.1_objective").metadata
    assert metadata[b"unit"] == b"nats"
    assert metadata[b"meaning"]


def test_margins_are_named_for_what_they_are():
    for name in ("margin_first_order", "margin_whitened"):
        assert "first order, not a certificate" in INPUT_COLUMNS[name].meaning
    for name in ("msssim_defended", "predicted_defended"):
        assert "not attacked adaptively" in ATTACK_COLUMNS[name].meaning
