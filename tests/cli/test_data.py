"""Data by the command line: ranges, labels, tables and folders, from the file to the report."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

TINY_HMC = ["--warmup", "2", "--transitions", "2", "--leapfrog", "2"]
SMALL = ["--inputs", 3, "--threads", 1]
TINY = [*SMALL, "--steps", 2, "--restarts", 1, "--samples", 20, "--eps", "8/255", *TINY_HMC]
STEPS = ["--steps", 2, "--restarts", 1]
X = np.random.default_rng(0).random((20, 8, 8)).astype(np.float32)
NAMES = np.array(["owl", "ant"] * 10)


def summary_of(folder):
    page = (folder / "report.html").read_text(encoding="utf-8")
    return json.loads((folder / "summary.json").read_text()), page


def test_an_attack_keeps_to_the_range(run, gaussian):
    common = ["--data", "digits", "--model", gaussian, *SMALL, "--out", "a.npz", *STEPS]
    for words in (["--range", "-1,1"], ["--low", -1], ["--low", "-2/2", "--high", "1"]):
        code, stdout, stderr = run("attack", *common, "--eps", 3, *words, "--force")
        assert code == 0
        assert "eps = 3 covers the whole box" in stderr
        assert "Pixels were mapped to [-1, 1]." in stdout
        attacked = np.load("a.npz")
        assert attacked["x"].min() == -1
        assert attacked["x_adv"].min() == -1
        assert attacked["x_adv"].max() == 1


def test_fractions_are_numbers(run, model):
    common = ["--data", "digits", "--model", model, *SMALL, "--out", "a.npz", *STEPS]
    assert run("attack", *common, "--eps", "8/255")[0] == 0
    delta = np.load("a.npz")["x_adv"] - np.load("a.npz")["x"]
    assert np.abs(delta).max() == pytest.approx(8 / 255, rel=1e-3)
    assert run("attack", *common, "--eps", "8/255", "--alpha", "0/1", "--force")[0] == 0


def test_the_report_of_another_range(run, here, gaussian):
    np.save("d.npy", 2 * X - 1)
    words = ["audit", "--data", "d.npy", "--model", gaussian, "--out", "r", *TINY]
    assert run(*words, "--range", "-1,1")[0] == 0
    summary, page = summary_of(here / "r")
    assert summary["configuration"]["range"] == [-1, 1]
    assert summary["configuration"]["eps"] == [8 / 255]
    assert summary["numbers"]["measure"] == "msssim"
    assert page.count("<img") == 2 * 5 * 3 + 3


def test_a_model_that_is_trained_in_another_range(run, refused, here):
    np.save("d.npy", 2 * X - 1)
    train = ["train", "--data", "d.npy", "--epochs", 1, "--range", "-1,1", "--threads", 1]
    line = refused(*train, "--out", "m.safetensors")
    assert "and likelihood 'bernoulli' is for [0, 1]; save (x + 1) / 2" in line
    assert "(--likelihood gaussian)" in line
    options = ["--likelihood", "gaussian", "--obs-std", "1/2", "--out", "m.safetensors"]
    assert run(*train, *options)[0] == 0
    certify = ["certify", "--data", "d.npy", "--model", "m.safetensors", "--samples", 20, *SMALL]
    assert "must be in [0, 1]" in refused(*certify, "--out", "c.parquet")
    assert run(*certify, "--range", "-1,1", "--out", "c.parquet")[0] == 0


def test_pixels_outside_a_bernoulli_model_name_the_remedy(refused, model):
    def audit(x, *words):
        np.save("d.npy", x)
        return refused("audit", "--data", "d.npy", "--model", model, "--out", "r", *TINY, *words)

    assert "save (x + 1) / 2, or pass --range -1,1" in audit(2 * X - 1)
    assert "save x / 255" in audit(255 * X)
    assert "is for [0, 1]; save (x + 1) / 2" in audit(2 * X - 1, "--range", "-1,1")
    assert "is for [0, 1]; save x / 255" in audit(255 * X, "--range", "0,255")
    assert "is for [0, 1]; leave --range out" in audit(X, "--range", "-1,1")


def test_wrong_ranges(refused):
    def audit(*words):
        return refused("audit", "--data", "digits", "--out", "r", *words)

    assert "--range must be two numbers as in -1,1, got '1'" in audit("--range", "1")
    assert "--range must be a number or a fraction as in 8/255, got 'a'" in audit("--range", "a,1")
    assert "leave one of them out" in audit("--range", "0,1", "--low", 0)
    assert "low must be below high, got 1 and 0" in audit("--range", "1,0")
    assert "'--low': must be a number or a fraction as in 8/255, got 'x'" in audit("--low", "x")
    assert "got '1/0'" in audit("--eps", "1/0")


def test_bytes_are_scaled_and_a_line_says_so(run, model, save_images):
    data = save_images("d.npy")
    code, stdout, _ = run(
        *("certify", "--data", data, "--model", model, "--samples", 20, *SMALL),
        *("--out", "c.parquet"),
    )
    assert code == 0
    assert "data     uint8 values from 0 to 255 were divided by 255." in stdout


def test_text_labels_keep_their_names_in_the_report(run, here, model):
    np.save("d.npy", X)
    np.savetxt("y.txt", NAMES, fmt="%s")
    words = ["audit", "--data", "d.npy", "--labels", "y.txt", "--model", model, "--out", "r", *TINY]
    assert run(*words)[0] == 0
    summary, page = summary_of(here / "r")
    assert summary["classes"] == ["ant", "owl"]
    assert ">ant<" in page or ">owl<" in page
    assert "The name under an image" in page
    assert pq.read_table("r/results.parquet")["label"].to_pylist()[0] in (0, 1)


def test_unfit_labels(refused, model):
    np.save("d.npy", X)
    np.save("y.npy", np.arange(3))
    words = ["audit", "--data", "d.npy", "--model", model, "--out", "r", *TINY]
    assert "[20] labels, one per input" in refused(*words, "--labels", "y.npy")
    assert "no labels file no.csv" in refused(*words, "--labels", "no.csv")


def write_table(columns=4):
    draw = np.random.default_rng(1)
    lines = [",".join([*(f"f{k}" for k in range(columns)), "kind"])]
    for k in range(30):
        row = draw.normal(size=columns) + 3 * (k % 2)
        lines.append(",".join([*(f"{value:.5f}" for value in row), ["left", "right"][k % 2]]))
    with open("t.csv", "w") as file:
        file.write("\n".join(lines))


def test_a_table_is_audited_without_pictures(run, here):
    write_table()
    words = ["audit", "--data", "t.csv", "--labels", "t.csv:kind", "--likelihood", "gaussian"]
    code, stdout, stderr = run(*words, "--latent", 2, "--epochs", 1, "--out", "r", *TINY)
    assert (code, stderr) == (0, "")
    assert "the inputs have no box" in stdout
    summary, page = summary_of(here / "r")
    assert "<img" not in page
    assert "What the attacks do to an image" not in page
    assert "pixel" not in page.split("<h2>How it was made</h2>")[0].split("</style>")[1]
    assert summary["numbers"]["measure"] == "distance"
    assert summary["configuration"]["range"] == "none"
    table = pq.read_table("r/results.parquet")
    names = table.column_names
    assert not [name for name in names if "msssim" in name]
    assert {"label", "distance_resampled", "clean_distance_defended"} <= set(names)
    assert "latent_linf_0.03137_distance_defended" in names
    assert table.schema.field("margin_whitened").metadata[b"unit"] == "data scale, ℓ2".encode()
    assert b"pixel" not in b"".join(table.schema.field(name).metadata[b"unit"] for name in names)


def test_a_table_in_the_unit_interval_has_a_box(run, here, save_images):
    data = save_images("rows.npy", shape=(20, 12), dtype="float32")
    words = ["audit", "--data", data, "--latent", 2, "--epochs", 1, "--out", "r", *TINY]
    assert run(*words, "--eps", 2)[0] == 0
    summary, _ = summary_of(here / "r")
    assert summary["configuration"]["range"] == [0, 1]
    assert summary["numbers"]["attacks"]["latent_linf_2"]["perturbation_norm"]["mean"] <= 1


def test_a_table_wants_a_likelihood_for_its_values(refused):
    write_table()
    line = refused("audit", "--data", "t.csv", "--labels", "t.csv:kind", "--out", "r")
    assert "likelihood 'bernoulli' is for [0, 1]; rescale it to [0, 1], or take a Gaussian" in line
    assert "'kind' must hold numbers, got 'left'" in refused(
        "audit", "--data", "t.csv", "--out", "r"
    )


def test_a_folder_of_images_is_audited(run, refused, here, model):
    for name in ("cat", "dog"):
        (here / "pets" / name).mkdir(parents=True)
        for k in range(10):
            pixels = (255 * X[k + 10 * (name == "dog")]).astype(np.uint8)
            Image.fromarray(pixels).save(here / "pets" / name / f"{k}.png")
    words = ["audit", "--data", "pets", "--model", model, "--out", "r", *TINY]
    code, _, stderr = run(*words)
    assert (code, stderr) == (0, "")
    assert summary_of(here / "r")[0]["classes"] == ["cat", "dog"]
    Image.new("L", (9, 8)).save(here / "pets" / "dog" / "3.png")
    line = refused(*words, "--force")
    assert "pets/cat/0.png is 8x8 pixels" in line
    assert "pets/dog/3.png is 9x8" in line


def test_truncated_files(refused, model, save_images):
    name = save_images("d.npy")
    with open(name, "rb") as file:
        whole = file.read()
    with open(name, "wb") as file:
        file.write(whole[:100])
    line = refused("audit", "--data", name, "--model", model, "--out", "r")
    assert "d.npy is not a readable NumPy file" in line


def test_a_model_that_is_given_meets_all_rows_of_a_file(run, module):
    x = np.random.default_rng(0).random((12, 1, 8, 8), dtype=np.float32)
    np.savez("x.npz", x=x, y=np.arange(12) % 2)
    words = ["--data", "x.npz", "--model", f"{module}:make_vae", "--out", "a.npz", "--force"]
    words += ["--steps", 1, "--restarts", 1, "--threads", 1]
    code, stdout, _ = run("attack", *words)
    assert code == 0
    assert np.array_equal(np.load("a.npz")["x"], x)
    assert np.array_equal(np.load("a.npz")["y"], np.arange(12) % 2)
    assert "all 12 are taken" in stdout
    code, stdout, _ = run("attack", *words, "--divergence", "clf")
    assert code == 0
    assert "test set, the others fit the latent classifier." in stdout
    assert len(np.load("a.npz")["x"]) == 2  # the classifier is fitted on the others
    assert "2 of its 12 inputs" in stdout
