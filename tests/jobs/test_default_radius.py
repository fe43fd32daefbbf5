"""A run without r takes the spread of its model, once, and says so."""

import json

import numpy as np
import pytest
import torch

from vaefast import jobs
from vaefast.audit.stages import unchanged_radius
from vaefast.cli import main

pytest.importorskip("pyarrow")
pytest.importorskip("xxhash")


@pytest.mark.parametrize("task", ["robust_probability", "margin"])
def test_it_is_the_quantile_that_certify_takes(plan_of, folder, vae, task):
    options = {"samples": 50} | ({"method": "whitened"} if task == "margin" else {})
    run = jobs.create(plan_of(task, r=(), options=options), folder / "run")
    x = torch.from_numpy(np.load(folder / "x.npy"))
    r = unchanged_radius(vae, x[x.flatten(1).isfinite().all(1)], 0)
    assert run.manifest.plan.r == (r,)
    assert run.manifest.entries["r"] == [r]
    stored = json.loads((run.folder / "manifest.json").read_text())
    assert "90 % quantile" in stored["plan"]["r_from"]
    given = jobs.create(plan_of(task, r=(r,), options=options), folder / "given")
    assert given.manifest.plan.r_from == ""
    assert given.manifest.fingerprint == run.manifest.fingerprint


def test_a_run_that_is_there_keeps_its_own(plan_of, folder):
    jobs.create(plan_of(r=(0.7,)), folder / "run")
    again = jobs.create(plan_of(r=()), folder / "run")
    assert again.manifest.plan.r == (0.7,)
    with pytest.raises(ValueError, match="is a run of something else: r:"):
        jobs.create(plan_of(r=(0.8,)), folder / "run")
    with pytest.raises(ValueError, match="is a run of something else: seed: 0 there, 1 here"):
        jobs.create(plan_of(r=(), seed=1), folder / "run")


def test_its_draws_are_none_of_the_run(plan_of, folder, monkeypatch):
    """Other draws for r, the same r: all numbers of the run are the same."""
    run = jobs.create(plan_of(r=()), folder / "run")
    run.work()
    monkeypatch.setattr("vaefast.audit.stages.PILOT", 40)
    other = jobs.create(plan_of(r=run.manifest.plan.r), folder / "other")
    other.work()
    tables = [each.merge(folder / f"{k}.parquet") for k, each in enumerate((run, other))]
    assert tables[0].read_bytes() == tables[1].read_bytes()


def test_the_command_line_and_the_page_say_it(folder, capsys):
    words = ["certify", "--model", str(folder / "m.safetensors"), "--data", str(folder / "x.npy")]
    words += ["--method", "probability", "--samples", "50", "--shard-size", "16"]
    assert main([*words, "--out", str(folder / "run")]) in (0, None)
    r = jobs.open(folder / "run").manifest.plan.r[0]
    said = f"r = {r:g}, the 90 % quantile of the model's own spread on the first 40 inputs"
    assert said in capsys.readouterr().out
    assert main(["jobs", "report", str(folder / "run")]) in (0, None)
    page = (folder / "run" / "report.html").read_text()
    assert f"r = {r:g} is the 90 % quantile" in page
    assert f"--r {r:g}" in page


def test_what_is_refused(plan_of, folder):
    np.save(folder / "x.npy", np.full((3, 1, 4, 4), np.nan, np.float32))
    with pytest.raises(ValueError, match="none of the first 3 inputs can be read to find r by"):
        jobs.create(plan_of(r=()), folder / "run")
    with pytest.raises(ValueError, match="'spectrum' takes no r"):
        plan_of("spectrum", r=(1.0,))
