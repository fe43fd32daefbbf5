"""The table of other libraries' attacks and chains, and that its cases run."""

import pytest

from vaefast.bench.integrations import cases
from vaefast.bench.integrations_table import integrations_table
from vaefast.bench.place import Place
from vaefast.bench.runner import check


def rows(case, **medians):
    return [{"case": case, "provider": p, "median_us": str(us)} for p, us in medians.items()]


def test_a_gain_is_bold_and_a_loss_is_shown():
    gain = rows("art.PGD linf 784 B=64 steps=10 float32 cpu", vaefast=100_000.0, art=150_000.0)
    loss = rows("pyro.HMC C=1 T=20 float32 cpu", vaefast=20_000.0, pyro=10_000.0)
    assert integrations_table([gain, loss])[2:] == [
        "| art.PGD, linf | 784 B=64 steps=10 | 100 | 150 | **1.50** |",
        "| pyro.HMC | C=1 T=20 | 20 | 10 | 0.50 |",
    ]


@pytest.mark.parametrize("case", cases(Place("cpu", tiny=True)), ids=lambda case: case[0])
def test_every_case_of_what_is_installed_agrees(case):
    check(case[1]())
