"""``certify --data attacked.npz`` split the file again and took the clean inputs. What an attack
wrote is taken whole by the steps that follow, and every command says which inputs it took.
"""

import json
import os

import numpy as np
import pyarrow.parquet as pq
import pytest

SHORT = ["--threads", 1]
ONE = ["--steps", 1, "--restarts", 1]
HMC = ["--warmup", 1, "--transitions", 1, "--leapfrog", 1]
COUNT = 131  # more than the first 128 of other data
CLEAN = "holds attacked inputs, x_adv, too: the clean ones, x, were taken."


@pytest.fixture
def attacked(run, model):
    words = ["--data", "digits", "--model", model, "--inputs", COUNT, *SHORT, *ONE]
    assert run("attack", *words, "--out", "a.npz")[0] == 0
    return "a.npz"


@pytest.mark.parametrize("name", ["a.npz", "A.NPZ"])
def test_the_next_steps_take_all_of_it(run, model, attacked, name):
    os.rename(attacked, name)
    common = ["--data", name, "--model", model, *SHORT]
    code, stdout, _ = run("defend", *common, *HMC, "--out", "d.npz")
    assert code == 0
    assert f"data     x_adv of {name}, {COUNT} attacked inputs." in stdout
    assert np.array_equal(np.load("d.npz")["x"], np.load(name)["x_adv"])
    code, stdout, _ = run("certify", *common, "--samples", 5, "--out", "c.parquet")
    assert code == 0
    assert f"data     x_adv of {name}, {COUNT} attacked inputs." in stdout
    assert pq.read_table("c.parquet").num_rows == COUNT
    assert run("certify", *common, "--samples", 5, "--out", "e.parquet", "--inputs", 3)[0] == 0
    assert pq.read_table("e.parquet").num_rows == 3


def test_certify_measures_the_attacked_inputs(run, model, attacked):
    """The same numbers as of a file that holds nothing but x_adv."""
    np.save("x.npy", np.load(attacked)["x_adv"][:4])
    tables = []
    for data in (attacked, "x.npy"):
        words = ["--data", data, "--model", model, *SHORT, "--samples", 20, "--r", 0.5]
        assert run("certify", *words, "--inputs", 4, "--out", "c.parquet", "--force")[0] == 0
        tables.append(pq.read_table("c.parquet").to_pydict())
    assert tables[0] == tables[1]


def test_commands_that_attack_say_that_they_take_the_clean_ones(run, model, attacked):
    common = ["--data", attacked, "--model", model, *SHORT, *ONE]
    code, stdout, _ = run("attack", *common, "--inputs", 2, "--out", "b.npz")
    assert code == 0
    assert f"data     a.npz {CLEAN}" in stdout
    assert np.array_equal(np.load("b.npz")["x"], np.load(attacked)["x"][:2])
    words = [*HMC, "--samples", 5, "--eps", 0.1, "--inputs", 2, "--out", "r"]
    code, stdout, _ = run("audit", *common, *words)
    assert code == 0
    assert CLEAN in stdout
    with open("r/summary.json", encoding="utf-8") as file:
        assert CLEAN in json.load(file)["notes"][0]
    code, stdout, _ = run(
        *("attack", "--data", "digits", "--model", model, *SHORT, *ONE, "--inputs", COUNT),
        *("--target", attacked, "--out", "t.npz"),
    )
    assert code == 0
    assert f"target   a.npz, one per input. a.npz {CLEAN.rstrip('.')}" in stdout
