"""The script of docs/hierarchical.md's table: its rows, and that the page has them."""

import math
from pathlib import Path

import pytest

import vaefast as vf
from vaefast.bench import hierarchical
from vaefast.bench.rows import append

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench/results/hierarchical.csv"
TINY = hierarchical.Size(
    rows=60, epochs=1, channels=2, latent=2, inputs=3, attack_steps=2, warmup=2, transitions=2,
    leapfrog=2,
)  # fmt: skip


def test_an_attack_and_the_defence_are_measured(tmp_path):
    data, path = vf.data.load("digits"), tmp_path / "rows.csv"
    model = hierarchical.trained(data, TINY)
    for top, eps in ((0, 0.0), (2, 0.1)):
        found = hierarchical.measure(model, data.x_test[:3], top, eps, TINY)
        assert (found.moved > 0) == (top > 0)
        assert all(0 < v < 1.0 for v in (found.before, found.after))
        assert math.isfinite(found.after_error)
        append(path, [found])
    lines = hierarchical.table(path).splitlines()
    assert lines[2].startswith("| none | 0 | 0 |")
    assert lines[3].startswith("| top 2 | 0.1 |")
    assert "3 test inputs" in lines[-1]


@pytest.mark.skipif(not RESULTS.exists(), reason="an installation has no results")
def test_the_page_has_the_table_of_the_results():
    assert hierarchical.table(RESULTS) in (ROOT / "docs/hierarchical.md").read_text()
