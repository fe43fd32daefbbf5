"""The page of a reproduction stands alone and is well formed; the table repeats its bytes."""

import csv
import io

import numpy as np
import pytest
from pages import Page

from vaefast.reproduce.kuzina2022.page import render
from vaefast.reproduce.kuzina2022.table import as_csv
from vaefast.reproduce.numbers import estimate

MEANS = {("published", "none"): (0.4, 0.2), ("published", "hmc"): (0.8, 0.75)}


@pytest.fixture
def text(made_up):
    found = made_up(MEANS, models=("vae", "tcvae-2.5"), classes=("<b>", "boot"))
    return render(found, "vaefast reproduce kuzina2022 --data x", "All of one version.")


def test_the_page_needs_nothing_else(text):
    assert "http" not in text
    assert "<script" not in text
    assert "url(" not in text.replace("url(#", "")
    for tag, attributes in Page(text).tags:
        assert tag not in ("script", "link", "iframe", "object")
        assert attributes.get("src", "data:").startswith("data:image/png;base64,") or tag != "img"
        assert attributes.get("href", "#").startswith("#")


def test_ids_are_unique_and_names_escaped(text):
    ids = [a["id"] for _, a in Page(text).tags if "id" in a]
    assert len(ids) == len({*ids})
    assert "<b>" not in text


def test_the_page_says_what_it_is_of(text):
    words = Page(text).text
    for part in (
        "HMC against the published attack raises MSSSIM in 4 of 4 cells",
        "HMC attacked adaptively",
        "β-TCVAE, β 2.5",
        "0.400 ± 0.000",
        "chain 3, published 1",
        "train inputs 12000 all",
        "transitions 60 –",
        "vaefast reproduce kuzina2022 --data x",
        "validation loss",
        "All of one version.",
        "attack at the class that knows nothing of HMC, HMC",
    ):
        assert part in words, part


def test_the_table_has_a_row_a_cell(made_up):
    found = made_up(MEANS)
    rows = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert len(rows) == len(found.cells) == 26
    row = rows[3]
    assert (row["attack"], row["defence"], row["radius"]) == ("published", "hmc", "0.1")
    assert (float(row["msssim"]), float(row["accuracy"])) == (0.8, 0.75)
    assert as_csv(found) == as_csv(made_up(MEANS))


def test_restarts_are_averaged_before_the_error_is_taken(made_up):
    cell = made_up(MEANS).cells[0]
    mean, error = estimate(cell.per_reference("msssim"))
    assert mean == pytest.approx(0.5)
    assert error == pytest.approx(np.std([0, 0, 0.01, -0.01], ddof=1) / 2)


def test_failed_chains_are_counted_and_left_out(made_up):
    cell = made_up(MEANS).cells[0]
    cell.msssim[0] = np.nan
    cell.same[1, 0] = np.nan
    assert cell.failed == 3
    assert np.isnan(cell.per_reference("msssim")[0])
    assert np.isfinite(cell.per_reference("same")).all()
    assert estimate(np.array([np.nan, 0.5])).mean == 0.5
    assert np.isnan(estimate(np.array([0.5])).std_error)
    assert np.isnan(estimate(np.array([np.nan])).mean)
