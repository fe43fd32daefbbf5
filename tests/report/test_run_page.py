"""The page of a run: what it says of a table, for any number of rows, of failures and of labels."""

import math
import re

import numpy as np
import pytest
import torch
from pages import Page

from vaefast.certify import Guarantee
from vaefast.report.run_numbers import scan
from vaefast.report.run_page import write_run_report
from vaefast.report.run_spread import Spread
from vaefast.report.run_words import Cost, RunFacts, promise

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

N = 600
FACTS = {
    "data": "made-up.npy",
    "model": "model.safetensors",
    "task": "margin",
    "guarantee": Guarantee.LOCAL.value,
    "r": (4.0,),
    "alpha": 1e-3,
    "fingerprint": "0123456789abcdef",
    "settings": {"method": "best", "seed": 0, "options": {"samples": 1000}},
    "cost": Cost(
        N, {"read": 1.0, "compute": 30.0, "write": 0.5}, processor_seconds=63.0, rate=20.0
    ),
    "command": "vaefast certify --data made-up.npy",
}


def table(path, n=N, *, labels=True, failures=0, radii=(), **columns):
    draw = np.random.default_rng(0)
    index = np.arange(n)
    failed = np.zeros(n, bool)
    failed[draw.choice(n, failures, replace=False)] = True
    reason = np.where(failed, [f"{k} of 784 values are NaN" for k in index], "")
    margin = np.maximum(draw.normal(0.4, 0.2, n) + 0.02 * (index % 10), 0.0)
    values = {"index": index} | ({"label": index % 10} if labels else {})
    values |= {"failed": failed, "reason": reason.astype(object)}
    for k, name in enumerate([f"margin_r{r:g}" for r in radii] or ["margin"]):
        values[name] = np.where(failed, np.nan, margin * (1 + k))
        values[name.replace("margin", "abstain")] = margin == 0
    pq.write_table(pa.table(values | columns), path)
    return path


def image(index):
    return torch.full((1, 8, 8), index / N)


@pytest.fixture
def write(tmp_path):
    def make(facts=None, read=image, **options):
        given = RunFacts(**(FACTS | (facts or {})))
        path = table(tmp_path / "all.parquet", **options)
        numbers = write_run_report(path, tmp_path / "report.html", given, read=read)
        text = (tmp_path / "report.html").read_text(encoding="utf-8")
        return text, Page(text), numbers

    return make


def test_the_page_needs_nothing_else(write):
    text, page, _ = write()
    assert "http" not in text
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object")
        assert attributes.get("src", "data:").startswith("data:image/png;base64,") or tag != "img"
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert all(a["alt"] for tag, a in page.tags if tag == "img")
    assert not re.search(r"#0[1-6]0[1-6]0[1-6]", text)


def test_every_part_is_there(write):
    _, page, _ = write(failures=3)
    for words in (
        "Certified share against radius",
        "Certified radius by class",
        "The worst inputs",
        "What failed",
        "The numbers",
        "What it cost",
        "29.2 processor-hours per million inputs",
        "0123456789abcdef",
        "vaefast certify --data made-up.npy",
        "samples=1000",
        "with probability at least 1 − α over the draws, α = 0.001",
    ):
        assert words in page.text, words


def test_the_worst_inputs_are_shown_by_their_numbers(write):
    _, page, numbers = write()
    shown = [a["alt"] for tag, a in page.tags if tag == "img"]
    assert len(shown) == len(numbers.worst) == 8
    assert shown[0].startswith(f"input {numbers.worst[0].index}: ")


def test_margins_that_are_no_certificates_are_not_called_so(write):
    _, page, _ = write({"guarantee": Guarantee.FIRST_ORDER.value})
    assert "certif" not in page.text.replace("not a certificate", "").replace(
        "no certificates", ""
    ).replace("vaefast certify", "")
    assert "Share of inputs by margin" in page.text
    assert page.text.count("first order, not a certificate") == 3


def test_without_labels_there_are_no_classes(write):
    _, page, numbers = write(labels=False)
    assert "class" not in page.text.lower()
    assert not numbers.labelled


def test_several_radii_are_curves_of_their_own(write):
    text, page, numbers = write({"r": (1.0, 2.0, 4.0, 8.0)}, radii=(1.0, 2.0, 4.0, 8.0))
    assert [column.r for column in numbers.of("margin")] == ["1", "2", "4", "8"]
    assert "3 of 4 r are shown" in page.text
    assert "for each input at all 4 r by itself" in page.text
    assert text.count('class="key-') >= 3


def test_one_row_is_still_a_page(write):
    _, page, numbers = write(n=1)
    assert numbers.rows == 1
    assert "1 input, r = 4" in page.text


@pytest.mark.parametrize("labels", [True, False])
def test_failures_are_in_no_number(write, labels):
    _, page, numbers = write(failures=40, labels=labels)
    assert (numbers.rows, numbers.failed) == (N, 40)
    assert numbers.columns["margin"].spread.count == N - 40
    assert "40 of 600 inputs failed and are in no other number" in page.text
    (failure,) = numbers.failures
    assert (failure.count, len(failure.first)) == (40, 5)
    assert "values are NaN" in page.text


def test_a_page_of_failures_is_still_a_page(write):
    _, page, _ = write(n=5, failures=5)
    assert "All 5 inputs failed" in page.text
    assert "How robust is" not in page.text


def test_reasons_of_kinds_without_end_are_bounded(tmp_path):
    reasons = np.array(["why " + "abc"[k % 3] * k for k in range(500)], object)
    path = table(tmp_path / "t.parquet", n=500, failures=500)
    wrong = pq.read_table(path).set_column(3, "reason", pa.array(reasons))
    pq.write_table(wrong, path)
    found = scan(path)
    assert len(found.failures) == 101
    assert sum(kind.count for kind in found.failures) == 500


def test_data_that_are_not_at_hand_leave_the_numbers(write):
    _, page, _ = write(read=None)
    assert "There are no pictures: the data were not at hand" in page.text
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert "input " in page.text
    _, page, _ = write(read=lambda index: "x.npy is gone")
    assert "There are no pictures: x.npy is gone" in page.text
    _, page, _ = write({"images": False})
    assert "The inputs are no images." in page.text
    assert "pixel" not in page.text


def test_attacks_have_a_page_whose_worst_inputs_lost_most(tmp_path):
    columns = {"index": np.arange(N), "failed": np.zeros(N, bool), "reason": [""] * N}
    columns |= {"objective": np.linspace(-1, 3, N), "x_adv": [[0.0, 1.0]] * N}
    pq.write_table(pa.table(columns), tmp_path / "all.parquet")
    facts = RunFacts("x.npy", "m", "latent")
    numbers = write_run_report(tmp_path / "all.parquet", tmp_path / "r.html", facts, read=image)
    assert [one.index for one in numbers.worst] == list(range(N - 1, N - 9, -1))
    page = Page((tmp_path / "r.html").read_text())
    assert "By objective, of all inputs" in page.text
    assert "x adv" not in page.text


def test_probabilities_have_a_page(tmp_path):
    columns = {"index": np.arange(N), "failed": np.zeros(N, bool), "reason": [""] * N}
    columns |= {"p": np.linspace(0, 1, N), "p_lower": np.linspace(0, 0.9, N)}
    pq.write_table(pa.table(columns), tmp_path / "all.parquet")
    facts = RunFacts("x.npy", "m", "robust_probability", r=(1.0,))
    write_run_report(tmp_path / "all.parquet", tmp_path / "r.html", facts, read=image)
    page = Page((tmp_path / "r.html").read_text())
    assert "The lower bounds of the probabilities hold for each input" in page.text
    assert "Probability to stay within r" in page.text


def test_names_are_escaped(write):
    text, _, _ = write({"data": "<b>x</b>"})
    assert "<b>" not in text


SENTENCES = {
    "of each input": ({}, "for each input by itself with probability at least 1 − α"),
    "of the run": ({"level": "run"}, "for all 600 inputs together with probability"),
    "of the run at radii": (
        {"level": "run", "r": (1.0, 2.0)},
        "for all 600 inputs and all 2 r together",
    ),
    "expected": ({}, "of 600 inputs up to 0.60 may be expected wrong"),
    "of constants": (
        {"guarantee": Guarantee.LIPSCHITZ.value, "settings": {"method": "lipschitz"}},
        "no draw is behind them",
    ),
    "of first order": ({"guarantee": Guarantee.FIRST_ORDER.value}, "are no certificates"),
    "of attacks": ({"task": "latent", "guarantee": ""}, "promise nothing"),
    "empirical": ({"task": "empirical_margin", "guarantee": ""}, "an upper limit"),
}


@pytest.mark.parametrize("case", SENTENCES)
def test_the_promise_is_one_sentence(case):
    change, words = SENTENCES[case]
    said = promise(RunFacts(**(FACTS | change)), N)
    assert words in said
    assert said.endswith(".")
    assert "\n" not in said


def test_a_spread_is_exact_at_its_edges():
    draw = np.random.default_rng(0)
    values = np.concatenate([draw.lognormal(0, 4, 5000), -draw.lognormal(0, 2, 3000), np.zeros(50)])
    spread = Spread()
    for part in np.array_split(values, 7):
        spread.add(part)
    edges, share = spread.at_least()
    assert spread.count == len(values)
    assert (np.diff(edges) > 0).all()
    exact = [(values >= edge).mean() for edge in edges[edges >= 0]]
    np.testing.assert_array_equal(share[edges >= 0], exact)
    for q in (0.0, 0.1, 0.25, 0.5, 0.9, 1.0):
        wanted = np.sort(values)[::-1][max(0, math.ceil((1 - q) * len(values)) - 1)]
        assert spread.quantile(q) == pytest.approx(wanted, rel=1.1e-3)


def test_a_spread_of_infinities_and_nothing():
    spread = Spread()
    assert spread.quantile(0.5) is None
    spread.add(np.array([np.inf, 1.0, np.nan, -np.inf]))
    assert spread.count == 3
    assert spread.at_least()[0].tolist() == [-np.inf, 1.0, np.inf]
    assert spread.quantile(0.5) == 1.0


def test_memory_of_a_spread_does_not_grow_with_the_values():
    spread = Spread()
    draw = np.random.default_rng(0)
    for _ in range(20):
        spread.add(draw.lognormal(0, 1, 20_000))
    assert len(spread.at_least()[0]) < 15_000


def test_the_numbers_of_the_page_are_those_of_the_table(tmp_path):
    path = table(tmp_path / "t.parquet", failures=40)
    found, frame = scan(path), pq.read_table(path).to_pandas()
    good = frame[~frame["failed"]]
    column = found.columns["margin"]
    assert column.zero == (good["margin"] <= 0).sum()
    assert column.spread.quantile(0.5) == pytest.approx(good["margin"].median(), rel=2e-3)
    for label, spread in column.classes.items():
        own = good[good["label"] == label]["margin"]
        assert spread.count == len(own)
    worst = good.sort_values(["margin", "index"])["index"].tolist()[:8]
    assert [one.index for one in found.worst] == worst
