"""A survey compiles what no earlier run has, survives crashes, and names failures."""

import json

import pytest

pytest.importorskip("triton", reason="triton is not installed")

from vaefast.kernels import aot, results, survey, table
from vaefast.kernels.binary import Binary
from vaefast.kernels.fingerprint import sources

FOUND = Binary(4, 2, 64, 0, 1024, 0, {"mma m16n8k8 tf32": 3}, {})


@pytest.fixture
def one_job(monkeypatch, tmp_path):
    """A job, with an empty cache."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    return survey.jobs("pgd_step", ["sm_90"])[0]


def compiled_as(monkeypatch, outcome):
    """A compiler that gives this for every job; the jobs that it was asked for."""
    asked = []

    def on_every_core(compile_one, wanted):
        for job in wanted:
            asked.append(job)
            yield job, outcome, 1.0

    monkeypatch.setattr(survey, "_on_every_core", on_every_core)
    return asked


def test_a_result_is_kept_for_the_next_run(monkeypatch, one_job):
    asked = compiled_as(monkeypatch, FOUND)
    lines = []
    for _ in range(2):
        assert survey.survey([one_job], lines.append) == {one_job: FOUND}
    assert asked == [one_job]
    assert "1 binaries, 1 of them kept from earlier runs" in lines


def test_forms_that_differ_in_nothing_but_their_label_are_compiled_once(monkeypatch, one_job):
    variants = dict(aot.variants_of("pgd_step"))
    variants["same"] = variants[one_job.label]._replace(label="same")
    monkeypatch.setattr(aot, "variants_of", lambda module: variants)
    asked = compiled_as(monkeypatch, FOUND)
    both = [one_job, one_job._replace(label="same")]
    assert survey.survey(both) == dict.fromkeys(both, FOUND)
    assert len(asked) == 1


def test_a_failure_is_named_and_not_kept(monkeypatch, one_job):
    compiled_as(monkeypatch, RuntimeError("no such instruction"))
    lines = []
    with pytest.raises(RuntimeError, match="no such instruction"):
        survey.survey([one_job], lines.append)
    assert "  FAILED  no such instruction" in lines
    compiled_as(monkeypatch, FOUND)
    assert survey.survey([one_job]) == {one_job: FOUND}


def test_half_a_result_is_none(one_job):
    results.keep("whole", FOUND)
    path = results.folder() / "whole.json"
    assert results.kept("whole") == FOUND
    path.write_text(path.read_text()[:20])
    assert results.kept("whole") is None
    path.write_text(json.dumps({"warps": 4}))
    assert results.kept("whole") is None


def test_a_key_holds_the_form_the_target_and_the_version(monkeypatch, one_job):
    variant = aot.variants_of("pgd_step")[one_job.label]
    keys = [
        results.key("pgd_step", variant, "sm_90"),
        results.key("pgd_step", variant, "sm_80"),
        results.key("pgd_step", variant._replace(num_warps=16), "sm_90"),
        results.key("log_likelihood", variant, "sm_90"),
    ]
    monkeypatch.setattr(results.triton, "__version__", "3.0.0")
    keys.append(results.key("pgd_step", variant, "sm_90"))
    assert len(set(keys)) == len(keys)
    renamed = variant._replace(label="other", targets=())
    assert results.key("pgd_step", renamed, "sm_90") == keys[-1]


def test_a_crash_of_the_compiler_fails_its_own_job_alone():
    """``eval`` in place of the compiler, on jobs of which one ends its process."""
    wanted = ["1 + 1", "__import__('os')._exit(3)", "1 / 0", "2 + 2", "3 + 3"]
    found = {job: outcome for job, outcome, _ in survey._on_every_core(eval, wanted)}
    assert (found["1 + 1"], found["2 + 2"], found["3 + 3"]) == (2, 4, 6)
    assert isinstance(found["1 / 0"], ZeroDivisionError)
    assert "_exit(3): the compiler crashed" in str(found[wanted[1]])
    assert len(found) == len(wanted)


def test_sources_are_all_that_a_kernel_imports_from_its_package():
    stems = {path.stem for path in sources("vaefast.kernels.net_chain")}
    assert {"net_chain", "philox", "elementary", "activations"} <= stems
    assert not {"pgd_step", "aot", "survey", "__init__"} & stems


def test_a_table_of_other_sources_or_another_triton_is_outdated():
    text = table.outline()
    assert table.outdated(text) == ""
    assert "not those of triton 3.0.0" in table.outdated(text, "3.0.0")
    first = text.index("<!-- sources ") + len("<!-- sources ")
    assert "sources and forms" in table.outdated(text[:first] + "x" + text[first + 1 :])
