"""What is said of a finished run: the list at one radius, and r that is chosen afterwards."""

import numpy as np
import pytest
import torch

from vaefast import certify, jobs
from vaefast.cli import main
from vaefast.jobs.lists import certified_list, free_choice
from vaefast.jobs.spread import ranks_of
from vaefast.jobs.table import table_metadata

pq = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("xxhash")

RADIUS = 0.35
BANDED = {"band": True, "options": {"samples": 300}, "alpha": 0.05}


@pytest.fixture
def finished(plan_of, folder):
    def make(**given):
        run = jobs.create(plan_of(**given), folder / "run")
        run.work()
        return run

    return make


def inputs(folder):
    return torch.from_numpy(np.load(folder / "x.npy"))


def test_the_list_is_that_of_one_call(finished, folder, vae):
    """Of 41 inputs in shards of 8, one of which is NaN; two radii share alpha."""
    run = finished(r=(0.04, 0.05), options={"samples": 300}, alpha=0.1)
    found = certified_list(run, RADIUS, folder / "list.parquet")
    columns = pq.read_table(found.path).to_pydict()
    for r, count in zip((0.04, 0.05), found.counts, strict=True):
        own = certify.certified_at(vae, inputs(folder), RADIUS, r, samples=300, alpha=0.05)
        assert not torch.equal(own.certified, certify.holm(own.p_value, 0.1))
        assert columns[f"certified_r{r:g}"] == own.certified.tolist()
        np.testing.assert_allclose(columns[f"p_value_r{r:g}"], own.p_value, rtol=1e-3)
        assert count == int(own.certified.sum())
    assert 0 < found.counts[0] < 41
    assert columns["index"] == list(range(41))
    assert np.isnan(columns["p_required"]).tolist() == [k == 7 for k in range(41)]
    assert not columns["certified_r0.05"][7]


def test_the_guarantee_stands_in_the_list(finished, folder):
    found = certified_list(finished(), RADIUS, folder / "list.parquet")
    about = table_metadata(found.path)
    assert about["guarantee"] == found.sentences[0]
    for words in ("of 41 inputs", "radius 0.35 for r = 0.8", "α = 0.001", "Holm", "were fixed"):
        assert words in found.sentences[0], words


def test_a_band_holds_what_all_draws_show(finished, folder, vae):
    """A share of alpha is that of the plan's r, and one that of the band."""
    run = finished(**BANDED)
    assert run.manifest.alpha == 0.025
    radii = (0.02, 0.03, 0.05, 0.06)
    found = free_choice(run, radii, folder / "at_r.parquet")
    columns = pq.read_table(found.path)
    x = inputs(folder)
    draws = certify.drawn_distances(vae, x, samples=300)
    for r in radii:
        whole = certify.band(draws, r, 0.025)[:, 0].numpy()
        kept = columns[f"p_lower_r{r:g}"].to_numpy()
        assert np.isnan(kept).tolist() == [k == 7 for k in range(41)]
        good = np.arange(41) != 7
        assert 0 < whole[good].mean() < 0.9
        assert (kept[good] <= whole[good] + 1e-12).all()
        high = good & (whole > 0.5)
        assert (kept[high] >= whole[high] - 1 / 128 - 1 / 300).all()
    assert list(found.counts) == sorted(found.counts)
    assert found.counts[-1] > 0
    assert "chosen after the run" in found.sentences[0]


@pytest.mark.parametrize("samples", [1, 2, 50, 64, 128, 1000, 50_000])
def test_ranks_are_the_upper_half(samples):
    ranks = ranks_of(samples)
    assert ranks[-1] == samples
    assert ranks[0] >= samples / 2
    assert bool((ranks.diff() > 0).all())
    assert len(ranks) <= 64


def test_a_band_has_the_same_bits_for_any_shards(plan_of, folder):
    tables = set()
    for size in (1, 7, 64):
        run = jobs.create(plan_of(shard_size=size, **BANDED), folder / f"of{size}")
        run.work()
        tables.add(run.merge(folder / f"{size}.parquet").read_bytes())
    assert len(tables) == 1


def test_the_command_line_says_both(folder, capsys):
    words = ["certify", "--model", str(folder / "m.safetensors"), "--data", str(folder / "x.npy")]
    words += ["--r", "0.8", "--method", "probability", "--samples", "300", "--band"]
    words += ["--alpha", "0.05", "--shard-size", "16", "--out", str(folder / "run")]
    assert main(words) in (0, None)
    words = ["jobs", "report", str(folder / "run"), "--certified-at", "0.02", "--r", "1,1.5"]
    assert main(words) in (0, None)
    out = capsys.readouterr().out
    page = (folder / "run" / "report.html").read_text()
    for said in (
        "inputs are certified at radius 0.02",
        "At r = 1, chosen after the run",
        "r = 1.5",
    ):
        assert said in out, said
        assert said in page, said
    assert (folder / "run" / "certified_at.parquet").exists()
    assert (folder / "run" / "at_r.parquet").exists()
    assert "--band" in page


def test_what_is_refused(finished, plan_of, folder):
    run = finished()
    with pytest.raises(ValueError, match="only where its plan has band=True"):
        free_choice(run, (1.0,), folder / "at_r.parquet")
    with pytest.raises(ValueError, match="radius must be finite and at least 0, got inf"):
        certified_list(run, float("inf"), folder / "list.parquet")
    with pytest.raises(ValueError, match="band is of task 'robust_probability'"):
        plan_of("margin", band=True)
    with pytest.raises(ValueError, match="alpha of a band must be at most 1/2"):
        plan_of(band=True, alpha=0.7)
    with pytest.raises(ValueError, match="band needs precision"):
        plan_of(band=True, precision="tf32")
    other = jobs.create(plan_of("spectrum"), folder / "spectrum")
    with pytest.raises(ValueError, match="needs the hits of a run of robust_probability"):
        certified_list(other, 0.1, folder / "list.parquet")
    begun = jobs.create(plan_of(seed=5), folder / "begun")
    with pytest.raises(ValueError, match=r"6 of 6 shards .* are missing"):
        certified_list(begun, 0.1, folder / "list.parquet")
