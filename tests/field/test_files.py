"""Files that people have: advice that would have spoilt the data, a parser's own words, a full disk
that no path was named for. Each message says the remedy by name, in one line.
"""

import os
import resource
from pathlib import Path

import numpy as np
import pytest
import torch

from vaefast import checks, data, models
from vaefast.models.likelihoods import check_pixels

DRAW = np.random.default_rng(0)
X = np.clip(DRAW.random((20, 1, 8, 8)) * 1.2 - 0.1, 0, 1).astype(np.float32)  # with exact 0 and 1
Y = np.arange(20) % 2
SHORT = ["--inputs", 4, "--threads", 1, "--steps", 1, "--restarts", 1]

# What a file holds, what maps it to X again, and words that would spoil it.
SCALES = {
    "16 bits": ((X * 65535).astype(np.uint16), "save x / 65535 if white is that", "uint8"),
    "16 bits as int": ((X * 65535).astype(np.int64), "save x / 65535 if white is that", "uint8"),
    "16 bits as float": (X * 65535, "save x / 65535 if white is that", "x / 255"),
    "8 bits as int": ((X * 255).astype(np.int64), "save x.astype('uint8')", "/ 255;"),
    "8 bits as float": (X * 255, "save x / 255", "uint8"),
    "4 bits": ((X * 16).astype(np.int64), "save x / 16", "255;"),
    "4 bits as float": (X * 16, "save x / 16", "255;"),
    "black and white": ((X > 0.5).astype(np.int64), "save x.astype('float32')", "255;"),
    "[-1, 1]": (2 * X - 1, "save (x + 1) / 2, or pass --range -1,1", "255;"),
    "[-1, 1] and rounding": ((2 * X - 1) * (1 + 1e-4), "save (x + 1) / 2", "255;"),
    "overshoot": (X * 1.06 - 0.03, "save x.clip(0, 1) if only a resize", "255"),
    "half overshoot": (X.astype(np.float16) + np.float16(1e-3), "save x.clip(0, 1)", "255"),
}


@pytest.mark.parametrize("name", SCALES)
def test_no_advice_spoils_the_data(tmp_path, name):
    x, remedy, spoiling = SCALES[name]
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(ValueError, match=r"x\.npy: x must be") as caught:
        data.load(tmp_path / "x.npy")
    assert "\n" not in str(caught.value)
    advice = str(caught.value).partition("; ")[2] + ";"
    assert remedy in advice
    assert spoiling not in advice


def test_the_advice_leads_back_to_the_image():
    """Every expression, taken at its word, gives [0, 1] with black and white where they were."""
    for scale in (lambda x: x * 255, lambda x: x * 65535, lambda x: x * 16, lambda x: 2 * x - 1):
        x = scale(X.astype(np.float64))
        words = checks.into_unit_interval("", "x", x.min(), x.max()).partition(" if ")[0]
        assert np.allclose(eval(words.strip(), {"x": x}), X)
    assert checks.into_unit_interval("pass", "x", -3, 5) == "rescale it to [0, 1]"


def test_log_p_gives_the_same_advice():
    for x, words in ((2 * X - 1, r"pass \(x \+ 1\) / 2"), (16 * X, "pass x / 16")):
        with pytest.raises(ValueError, match=words):
            check_pixels(torch.from_numpy(x), "bernoulli")
    with pytest.raises(ValueError, match=r"pass x\.clip\(0, 1\)"):
        check_pixels(torch.from_numpy(X) + 1e-7, "bernoulli")


@pytest.mark.parametrize("shift", [1e-7, -1e-7])
def test_rounding_is_put_right_with_a_word(run, model, tmp_path, shift):
    np.save(tmp_path / "x.npy", X + np.float32(shift))
    loaded = data.load(tmp_path / "x.npy", split="never")
    assert (loaded.x_test.max() if shift > 0 else 1 - loaded.x_test.min()) == 1
    assert "values lay outside [0, 1] by rounding, at most by" in loaded.note
    code, stdout, _ = run("attack", "--data", "x.npy", "--model", model, "--out", "o.npz", *SHORT)
    assert code == 0
    assert "by rounding" in stdout
    np.savez(tmp_path / "s.npz", x=X, x_test=X + np.float32(shift))
    assert "Of x_test " in data.load(tmp_path / "s.npz").note


def test_rounding_around_a_box_of_ones_own(tmp_path):
    np.save(tmp_path / "x.npy", (2 * X - 1) * np.float32(1 + 2e-7))
    loaded = data.load(tmp_path / "x.npy", low=-1, high=1)
    assert loaded.x_train.abs().max() == 1
    assert "outside [-1, 1] by rounding" in loaded.note


def test_rows_that_are_not_finite_are_named(tmp_path):
    x = X.copy()
    x[[3, 7], 0, 2] = np.nan
    np.savez(tmp_path / "x.npz", x=x, y=Y)
    with pytest.raises(
        ValueError, match="NaN or infinity in 2 of 20 rows, the first row 3; save x"
    ):
        data.load(tmp_path / "x.npz")
    kept = eval("x[np.isfinite(x.reshape(len(x), -1)).all(1)]", {"x": x, "np": np})
    assert np.array_equal(kept, np.delete(X, [3, 7], axis=0))


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "c.npz"])
def test_files_that_were_cut_short(tmp_path, name):
    np.save(tmp_path / "x.npy", X)
    np.savez(tmp_path / "x.npz", x=X, y=Y)
    np.savez_compressed(tmp_path / "c.npz", x=X, y=Y)
    path = tmp_path / name
    whole = path.read_bytes()
    for length in (0, 3, 10, 100, 900, len(whole) - 200, len(whole) - 5):
        path.write_bytes(whole[:length])
        reason = "it ends too early; copy it again" if length else "it is empty"
        with pytest.raises(ValueError, match=f"{name} is not a readable NumPy file.*: {reason}"):
            data.load(path)


def test_bytes_that_changed_on_the_way(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", x=X, y=Y)
    spoilt = bytearray((tmp_path / "x.npz").read_bytes())
    spoilt[300] ^= 255
    (tmp_path / "x.npz").write_bytes(spoilt)
    with pytest.raises(ValueError, match=r"is damaged; copy it again|invalid|decompress"):
        data.load(tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (np.array(["ant", "owl"] * 10, dtype=object), r"Python objects; save y\.astype\(str\)"),
        (Y - 1, "got -1; save y - y.min()"),
        (np.where(Y == 1, np.nan, Y), "got NaN or infinity in row 1"),
        (Y + 0.5, "got 0.5; save np.digitize"),
        (np.eye(2)[Y], r"of one-hot rows save y\.argmax\(1\)"),
        (Y[:, None], r"save y\[:, 0\]"),
        (np.array(["2020-01-01"] * 20, dtype="M8[D]"), r"save y\.astype\(str\)"),
    ],
)
def test_labels_that_are_none(tmp_path, y, words):
    np.savez(tmp_path / "x.npz", x=X, y=y)
    with pytest.raises(ValueError, match=rf"x\.npz.*{words}"):
        data.load(tmp_path / "x.npz")


@pytest.mark.parametrize("y", [Y.astype(str), Y.astype("S"), Y.astype(float), Y == 1])
def test_labels_as_text_bytes_floats_and_truth(tmp_path, y):
    np.savez(tmp_path / "x.npz", x=X, y=y)
    assert data.load(tmp_path / "x.npz", split="never").y_test.tolist() == Y.tolist()


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("x.pt", r"np\.save\('x\.npy', torch\.load\('x\.pt', weights_only=True\)\.numpy"),
        ("x.pkl", "unpickle it where you trust it"),
        ("x.h5", "scipy or h5py"),
        ("m.safetensors", "a model goes to --model"),
        ("x.PNG", "name the folder that the images lie in"),
        ("x.npz.gz", "unpack it first"),
    ],
)
def test_files_of_other_kinds_as_data(name, remedy):
    with pytest.raises(ValueError, match=remedy):
        data.load(name)


def test_a_torch_file_by_the_name_of_an_archive(tmp_path):
    torch.save(torch.from_numpy(X), tmp_path / "x.npz")
    with pytest.raises(ValueError, match=r"one of torch\.save; save the tensor's x\.numpy\(\)"):
        data.load(tmp_path / "x.npz")


def test_models_of_other_kinds(refused, model, tmp_path):
    np.save("x.npy", X)
    torch.save(models.load(model).state_dict(), "w.pt")
    with pytest.raises(ValueError, match=r"does not say what model.*def make_vae\(\)"):
        models.load("w.pt")
    words = ["attack", "--data", "x.npy", "--out", "o.npz", *SHORT, "--model"]
    assert "pass --model mine.py:make_vae" in refused(*words, "w.pt")
    assert "--model x.npy holds data, not a model" in refused(*words, "x.npy")
    line = refused(*words, "C:\\models\\mine.py:make")
    assert "give its path with /, or run from its folder with --model mine:make" in line
    Path("junk.safetensors").write_text("junk")
    assert "--model junk.safetensors is not a readable safetensors file" in refused(
        *words, "junk.safetensors"
    )


def test_out_keeps_to_its_kind(refused, run, model):
    words = ["--data", "digits", "--model", model, "--inputs", 2, "--threads", 1, "--out"]
    for command, suffix in (("attack", ".npz"), ("defend", ".npz"), ("certify", ".parquet")):
        for name in ("o.png", "o.csv", "o.pt", "o.txt", "o.zip"):
            assert f"writes {suffix}; name o{suffix}" in refused(command, *words, name)
    for name in ("r.zip", "r.png", "r.pt", "r.html", "r.npz"):
        assert "an audit writes a folder; name r" in refused("audit", *words, name)
    assert "writes .safetensors" in refused("train", "--data", "digits", "--out", "m.pt")
    assert "writes .csv; name o.csv" in refused("bench", "pgd_step", "--out", "o.npz")


def test_a_full_disk_is_found_before_the_work(refused, model, monkeypatch):
    """By writing as much as a result takes at least: free space alone knows no quota."""
    monkeypatch.setattr("vaefast.cli.attack.load_model", lambda *_, **__: pytest.fail("worked"))
    with _largest_file(1000):
        line = refused("attack", "--data", "digits", "--model", model, "--out", "o.npz")
    assert f"--out {Path('o.npz').resolve()} cannot be written: File too large; free some" in line


@pytest.mark.parametrize("command", ["attack", "certify"])
def test_a_disk_that_is_full_at_the_end_names_the_path(refused, run, model, monkeypatch, command):
    """What stood there before is still there."""
    monkeypatch.setattr("vaefast.report.folder.ROOM", 10)
    suffix, options = {
        "attack": (".npz", SHORT),
        "certify": (".parquet", [*SHORT[:4], "--samples", 5]),
    }[command]
    out = Path(f"o{suffix}")
    words = [command, "--data", "digits", "--model", model, "--out", out, *options]
    assert run(*words)[0] == 0
    before = out.read_bytes()
    with _largest_file(1000):
        line = refused(*words, "--force")
    assert f"--out {out.resolve()} cannot be written" in line
    assert "too large; free some space, or name a path on another disk" in line
    assert out.read_bytes() == before


def test_a_model_that_does_not_fit_the_disk(tmp_path):
    path = tmp_path / "m.safetensors"
    with _largest_file(1000), pytest.raises(OSError, match="File too large") as caught:
        models.save(models.MLPVAE((1, 8, 8), (8,), 2), path)
    assert caught.value.filename == str(path)
    assert os.listdir(tmp_path) == []


class _largest_file:
    """A limit of the system's on what a file may hold: writes beyond it fail, as on a full disk."""

    def __init__(self, size):
        self.size = size

    def __enter__(self):
        self.before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.before[1]))

    def __exit__(self, *_):
        resource.setrlimit(resource.RLIMIT_FSIZE, self.before)
