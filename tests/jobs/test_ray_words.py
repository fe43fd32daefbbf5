"""The words of the command line that concern Ray."""

import pytest

from vaefast.cli import engines
from vaefast.jobs import RayOptions


def test_words_become_options():
    found = engines.how("ray", "auto", None, 0.5, 900.0)
    options = RayOptions(address="auto", gpus_per_worker=0.5, wait_for_nodes=900.0)
    assert found == {"engine": "ray", "options": options}
    assert engines.how("local") == {"engine": "local"}


def test_words_of_ray_need_ray():
    with pytest.raises(ValueError, match="--address, --gpus-per-worker: of Ray; add --engine ray"):
        engines.how("local", "auto", gpus=1)


@pytest.mark.parametrize("command", [("certify",), ("jobs", "resume")])
def test_commands_have_the_words(run, command):
    code, text, _ = run(*command, "--help")
    assert code == 0
    for word in ("--engine", "--address", "--cpus-per-worker", "--gpus-per-worker"):
        assert word in text
