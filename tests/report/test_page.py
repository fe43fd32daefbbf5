"""report.html stands alone, says what it must, and is well formed."""

import json
import re

import numpy as np
import pytest
from pages import Page

from vaefast.certify import Guarantee
from vaefast.report.summary import write_report

MODEL = {"name": "an MLP VAE", "likelihood": "bernoulli", "explanation": "decoder  fast"}


@pytest.fixture(scope="module")
def written():
    """The pages that were written without a change, by their options: plots take a second."""
    return {}


@pytest.fixture
def write(made_up_audit, tmp_path, written):
    def make(change=None, **options):
        key = repr(sorted(options.items()))
        if change is None and key in written:
            return written[key]
        audit = made_up_audit(**options)
        if change is not None:
            change(audit)
        summary = write_report(audit, tmp_path, model=MODEL, command="vaefast audit --data x")
        text = (tmp_path / "report.html").read_text(encoding="utf-8")
        found = text, Page(text), summary
        if change is None:
            written[key] = found
        return found

    return make


@pytest.mark.parametrize("options", [{}, {"labels": False, "channels": 3}, {"channels": 4}])
def test_the_page_needs_nothing_else(write, options):
    text, page, _ = write(**options)
    assert "http" not in text
    assert "<script" not in text
    assert "url(" not in text.replace("url(#", "")
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object")
        assert attributes.get("src", "data:").startswith("data:image/png;base64,") or tag != "img"
        assert attributes.get("href", "#").startswith("#")


def test_ids_are_unique_and_every_picture_has_words(write):
    _, page, _ = write()
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert all(a["alt"] for tag, a in page.tags if tag == "img")
    labelled = [a for _, a in page.tags if a.get("role") == "img"]
    assert labelled
    assert all(len(a["aria-label"]) > 40 for a in labelled)


def test_svg_takes_its_colours_from_the_page(write):
    text, _, _ = write()
    assert not re.search(r"#0[1-6]0[1-6]0[1-6]", text)
    assert text.count("var(--series-1)") > 4
    assert "DejaVu Sans'" not in text
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_the_page_keeps_to_honest_words(write):
    _, page, _ = write()
    assert "first order, not a certificate" in page.text
    assert "certified" not in page.text.lower()
    assert "not attacked adaptively" in page.text


def test_certified_whitened_and_empirical_stand_in_one_picture_with_their_ratio(write):
    _, page, summary = write(certified=True)
    found = summary["numbers"]["empirical"]
    assert (found["inputs"], found["broken"], found["violated"]) == (8, 7, [])
    assert "Certified, whitened, empirical" in page.text
    assert f"the median ratio is {found['ratio']:.2f}" in page.text
    assert "of the smallest break that an attack found" in page.text
    assert f"{Guarantee.LOCAL_RUN}; 0 where nothing" in page.text
    assert summary["columns"]["margin_certified"]["meaning"].count("of the run at once") == 1
    assert "contradicted" not in page.text.lower()


def test_certificates_of_the_first_inputs_say_of_how_many(write):
    def change(audit):
        audit.values["margin_certified"][4:] = np.nan
        known.extend(audit.values["margin_certified"])

    known = []
    _, page, summary = write(change, certified=True)
    assert summary["numbers"]["certified"] == 4
    assert summary["numbers"]["clean"]["margin_certified"]["median"] == pytest.approx(
        np.median(known[:4])
    )
    assert "half of the 4 inputs that got a certified margin" in page.text
    assert "Certified margins are of 4 of them." in page.text
    assert f"It is of 4 of the {len(known)} inputs." in page.text


def test_a_certificate_that_an_attack_contradicts_is_said_loudly(write):
    def change(audit):
        audit.values["margin_certified"][5] = audit.values["margin_empirical"][5] + 0.1

    _, page, summary = write(change, certified=True)
    assert summary["numbers"]["empirical"]["violated"] == [5]
    assert page.text.count("CONTRADICTED") == 2  # in the findings and under the picture


@pytest.mark.parametrize("guarantee", Guarantee)
def test_the_margins_show_their_own_guarantee(write, guarantee):
    _, page, summary = write(guarantee=guarantee)
    assert f"clean input: {guarantee}." in page.text
    assert page.text.count(f"{guarantee}; 0 where it abstains") == 2
    assert summary["numbers"]["guarantee"] == guarantee.value
    assert f"; {guarantee}; 0 where" in summary["columns"]["margin_whitened"]["meaning"]


def test_the_page_says_when_numbers_repeat(write):
    _, page, _ = write()
    assert "the same numbers again, on the same machine with the same versions" in page.text


def test_no_number_with_the_defence_stands_alone(write):
    """Every cell, tile and sentence with a defended number holds the words."""
    text, _, _ = write()
    stating = re.findall(r"<(?:dt|li|th|h4|figcaption)[^>]*>([^<]*defen[^<]*)<", text)
    # plain names: the strip of pictures, the clean inputs' own rows, the stages
    names = {"After the defence", "Similarity before and after the defence"}
    stating = [s for s in stating if s not in names and not s.startswith("defend")]
    assert len(stating) > 5
    for sentence in stating:
        assert "not attacked adaptively" in sentence


def test_without_labels_there_is_no_accuracy_and_a_reason(write):
    _, page, summary = write(labels=False)
    assert "same class" not in page.text.lower()
    assert "without labels" in page.text
    assert "predicted" not in " ".join(summary["columns"])
    assert "accuracy" not in json.dumps(summary["numbers"])


def test_a_table_has_every_number_and_no_pictures(write):
    text, page, summary = write(table=True)
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert "What the attacks do to an image" not in page.text
    assert "data scale" in page.text
    assert "pixel" not in page.text
    assert "MSSSIM" not in page.text
    assert "distance of the reconstructions" in page.text
    assert summary["configuration"]["range"] == "none"
    assert "{ display: block; }" not in text.split(".panel {")[0]


def test_classes_keep_their_names(write):
    names = tuple(f"class-{k}" for k in range(10))
    _, page, summary = write(classes=names)
    assert "class-3" in page.text
    assert "The name under an image" in page.text
    assert summary["classes"] == list(names)


def test_every_part_is_there(write):
    _, page, _ = write()
    headings = " ".join(page.words)
    for words in (
        "Original",
        "Adversarial",
        "Reconstruction of the adversarial",
        "After the defence",
        "Margin against likelihood degradation",
        "Objective against attack step",
        "Eigenspectrum",
        "what it means",
        "throughput",
        "vaefast audit --data x",
        "Versions",
        "decoder  fast",
    ):
        assert words in headings, words


def test_failures_are_told(write):
    def fail(audit):
        audit.values["failed"][:2] = True
        audit.notes.append("2 of 24 rows failed (clean inputs)")

    _, page, _ = write(fail)
    assert "2 of 24 rows failed" in page.text


def test_a_page_of_failures_is_still_a_page(write):
    def fail(audit):
        audit.values["failed"][:] = True
        for outcome in audit.outcomes:
            outcome.values["failed"][:] = True
            outcome.values["msssim"][:] = np.nan

    _, page, summary = write(fail)
    assert "Every input failed" in page.text
    assert summary["numbers"]["failed"] == 24


def test_a_failed_attack_is_still_a_page(write):
    def fail(audit):
        audit.outcomes[0].values["failed"][:] = True
        audit.outcomes[2].values["failed"][:] = True

    _, page, _ = write(fail)
    assert "failed on every input" in page.text


def test_infinite_margins_are_still_a_page(write):
    def unbound(audit):
        audit.values["margin_whitened"][:] = np.inf
        audit.values["margin_first_order"][:] = np.inf
        audit.eigenvalues[:] = 0.0

    write(unbound)


def test_names_are_escaped(made_up_audit, tmp_path):
    audit = made_up_audit()
    object.__setattr__(audit, "data_name", "<b>x</b>.npy")
    write_report(audit, tmp_path, model=MODEL)
    assert "<b>" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_summary_keeps_the_clock_apart(write):
    _, _, summary = write()
    assert summary["made_by"] == "vaefast audit"
    assert {"configuration", "versions", "seed", "numbers", "timing"} <= summary.keys()
    assert summary["timing"][0]["seconds"] == 1.5
    assert "seconds" not in json.dumps(summary["numbers"])
