"""The script of docs/training.md's table: it measures every kind of model, and the page has it."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

import vaefast as vf
from vaefast.bench import training
from vaefast.bench.rows import append

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench/results/training.csv"
TINY = training.Size(rows=60, epochs=1, inputs=3, hidden=(8,), latent=2, channels=2, steps=2)


@pytest.mark.parametrize("name", ["elbo", "mixup", "groups, seatbelt 10"])
def test_a_run_is_measured(name, tmp_path):
    found = training.measure(name, vf.data.load("digits"), TINY)
    assert found.case == name
    assert found.damage > 0
    assert found.seconds > 0
    assert math.isfinite(found.reconstruction)
    assert math.isnan(found.eigenvalue) == name.startswith("groups")
    path = tmp_path / "rows.csv"
    append(path, [found])
    append(path, [replace(found, damage=12.345)])
    page = training.table(path)
    assert page.count(name) == 1
    assert "12.35" in page or "12.34" in page


def test_names_are_checked(capsys):
    with pytest.raises(SystemExit):
        training.main(["nothing"])
    assert "NAME must be one of elbo" in capsys.readouterr().err


@pytest.mark.skipif(not RESULTS.exists(), reason="an installation has no results")
def test_the_page_has_the_table_of_the_results():
    assert training.table(RESULTS) in (ROOT / "docs/training.md").read_text()
