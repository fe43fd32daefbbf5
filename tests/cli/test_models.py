"""``--model`` and ``--out``: every kind of source, and the remedy for what is none."""

import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

STEPS = ["--inputs", 2, "--threads", 1, "--steps", 2, "--restarts", 1]


def attack(model):
    return ["attack", "--data", "digits", "--model", model, "--out", "a.npz", *STEPS]


def test_a_function_of_a_file(run, module):
    Path("models").mkdir()
    Path(f"{module}.py").rename("models/random.py")  # no name of a file hides another module
    random = sys.modules.get("random")
    for name in ("models/random.py", str(Path("models/random.py").resolve())):
        code, _, stderr = run(*attack(f"{name}:make_vae"), "--force")
        assert (code, stderr) == (0, "")
    assert sys.modules.get("random") is random


def test_a_file_may_import_its_neighbours(run, module):
    Path("models").mkdir()
    Path(f"{module}.py").rename(f"models/{module}_parts.py")
    Path("models/mine.py").write_text(f"from {module}_parts import make_vae as build\n")
    assert run(*attack("models/mine.py:build"))[0] == 0


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("w.pt", "torch.load('w.pt', weights_only=True)); return vae.eval() and pass --model"),
        ("w.ckpt", "is a file of weights that does not say what model they belong to"),
        ("mine.py", "name the function in it, as in mine.py:make_vae"),
        ("mine.py:make", "there is no file mine.py from "),
        (r"C:\m.py:make", r"there is no file C:\m.py from "),
        ("m.safetensor", "there is no such file; give a .safetensors file of vaefast train"),
        ("no_such.mod:make", "importing no_such.mod failed with ModuleNotFoundError"),
    ],
)
def test_other_sources_name_the_remedy(refused, model, words):
    line = refused(*attack(model))
    assert f"--model {model}" in line
    assert words in line


def test_errors_inside_a_file(refused, module):
    Path("bad.py").write_text("import torch\n1 / 0\n")
    assert "running bad.py failed with ZeroDivisionError" in refused(*attack("bad.py:make"))
    assert f"{module}.py has no 'nope'" in refused(*attack(f"{module}.py:nope"))


def test_the_std_of_a_gaussian_model(run, refused, module, gaussian, model):
    defend = ["defend", "--data", "digits", "--inputs", 2, "--threads", 1, "--warmup", 2]
    defend += ["--transitions", 2, "--leapfrog", 2, "--out", "d.npz", "--model"]
    likelihood = ["--likelihood", "gaussian", "--obs-std"]
    results = []
    for std in ("1/10", "1"):
        assert run(*defend, f"{module}:make_vae", *likelihood, std, "--force")[0] == 0
        results.append(np.load("d.npz")["z"])
    assert not np.array_equal(*results)
    assert "obs_std 0.3 already, got 1.0" in refused(*defend, gaussian, "--force", "--obs-std", 1)
    line = refused(*defend, model, "--force", "--obs-std", 1)
    assert "--obs-std" in line or "obs_std" in line
    train = ["train", "--data", "digits", "--out", "m2.safetensors", "--obs-std", 1]
    assert "--obs-std is for --likelihood gaussian" in refused(*train)


def test_out_names_what_is_written(refused, model):
    data = ["--data", "digits", "--model", model, "--out"]
    assert "writes .npz; name a.npz" in refused("attack", *data, "a.csv")
    assert "writes .npz; name a.npz" in refused("defend", *data, "a.npy")
    assert "writes .parquet; name m.parquet" in refused("certify", *data, "m.csv")
    assert "writes .safetensors" in refused("train", "--data", "digits", "--out", "m.pt")
    assert "an audit writes a folder; name r" in refused("audit", *data, "r.html")


def test_certify_takes_all_that_attack_wrote(run, model):
    import pyarrow.parquet as pq

    assert run(*attack(model))[0] == 0
    words = ["--data", "a.npz", "--model", model, "--threads", 1, "--samples", 20]
    assert run("certify", *words, "--out", "c.parquet")[0] == 0
    assert pq.read_table("c.parquet").num_rows == 2


BOXED = """
    from {module} import make_vae as build
    from vaefast.models import as_vae

    def make_vae():
        vae = as_vae(build().eval(), likelihood="gaussian")
        vae.box = (-1.0, 1.0)
        return vae
"""


def test_the_range_is_that_of_the_model(run, module):
    Path("boxed.py").write_text(textwrap.dedent(BOXED.format(module=module)))
    x = 2 * np.random.default_rng(0).random((12, 1, 8, 8), dtype=np.float32) - 1
    np.savez("x.npz", x_train=x, x_test=x)
    words = ["attack", "--data", "x.npz", "--out", "a.npz", *STEPS, "--eps", 3, "--model"]
    code, _, stderr = run(*words, "boxed.py:make_vae")
    assert code == 0
    assert "covers the whole box from -1 to 1" in stderr
    found = np.load("a.npz")["x_adv"]
    assert (found.min(), found.max()) == (-1.0, 1.0)
    assert "--range" in run(*words, f"{module}:make_vae", "--likelihood", "gaussian", "--force")[2]
    defend = ["defend", "--data", "x.npz", "--out", "d.npz", "--inputs", 2, "--warmup", 2]
    assert run(*defend, "--transitions", 2, "--model", "boxed.py:make_vae")[0] == 0


def test_the_scale_of_a_module_is_what_it_is_said_to_be(run, refused, module):
    defend = ["defend", "--data", "digits", "--inputs", 2, "--threads", 1, "--warmup", 2]
    defend += ["--transitions", 2, "--out", "d.npz", "--model", f"{module}:make_vae", "--force"]
    results = []
    for name in ("logvar", "logstd"):
        assert run(*defend, "--encoder-output", name)[0] == 0
        results.append(np.load("d.npz")["z"])
    assert not np.array_equal(*results)
    assert "encoder_output must be one of" in refused(*defend, "--encoder-output", "sigma")
