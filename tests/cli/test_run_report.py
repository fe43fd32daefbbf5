"""``vaefast jobs report``: from the folder of a run to its page."""

import numpy as np
import pytest
import torch

from vaefast import jobs, models
from vaefast.cli import main
from vaefast.cli.run_report import report_run
from vaefast.jobs.status import snapshot

pq = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("xxhash")


@pytest.fixture
def begun(tmp_path):
    torch.manual_seed(0)
    vae = models.MLPVAE((1, 8, 8), (16,), 4).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "x.npy", pixels)
    plan = jobs.RunPlan(
        vae, str(tmp_path / "x.npy"), r=(3.0,), options={"samples": 40}, shard_size=16
    )
    return jobs.create(plan, tmp_path / "run")


def test_the_page_of_a_finished_run(begun, capsys):
    begun.work()
    assert main(["jobs", "report", str(begun.folder)]) in (0, None)
    page = (begun.folder / "report.html").read_text()
    for words in (
        "40 inputs, r = 3",
        "x.npy",
        begun.manifest.fingerprint,
        "What it cost",
        "compute",
    ):
        assert words in page, words
    assert page.count("data:image/png") == 8
    assert "report.html" in capsys.readouterr().out
    assert not list(begun.folder.glob(".report*"))


def test_a_run_that_is_not_complete_has_no_page(begun):
    with pytest.raises(ValueError, match=r"3 of 3 shards .* are missing"):
        report_run(begun, begun.folder / "report.html")
    assert not (begun.folder / "report.html").exists()


@pytest.mark.parametrize("change", ["gone", "others"])
def test_data_that_are_not_at_hand_leave_the_numbers(begun, change):
    begun.work()
    path = begun.folder.parent / "x.npy"
    if change == "gone":
        path.unlink()
    else:
        np.save(path, np.zeros((40, 1, 8, 8), np.uint8))
    page = report_run(jobs.open(begun.folder), begun.folder / "report.html").read_text()
    assert "There are no pictures: " in page
    assert "data:image/png" not in page
    assert "the data are no longer those of the run" in page or change == "gone"


def test_a_folder_tells_how_far_its_run_is(begun):
    assert snapshot(begun).words() == "0 of 40 rows (0.0 %), 0 failed"
    looked = []
    begun.work(done=lambda one: looked.append(snapshot(begun).done))
    assert looked == [16, 32, 40]
    now = snapshot(begun)
    assert set(now.seconds) >= {"read", "compute"}
    assert now.shares["compute"] > 0
