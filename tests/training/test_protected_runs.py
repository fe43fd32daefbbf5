"""Runs with the objectives that protect: they repeat, and go on after a stop."""

import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass

import pytest
import torch
from dropping import Dropping

from vaefast.models import HierarchicalVAE, as_vae
from vaefast.training import (
    AVAE,
    Adversarial,
    Fisher,
    Mixup,
    Objective,
    Seatbelt,
    Smooth,
    fit,
)

SHORT = {
    "mixup": Mixup(1.5),
    "smooth": Smooth(1.5, steps=2),
    "avae": AVAE(1.5),
    "fisher": Fisher(1.5),
    "adversarial": Adversarial(1.5, steps=2),
    "seatbelt": Seatbelt(4.0),
}
OPTIONS = {"epochs": 3, "batch_size": 10, "seed": 3, "lr": 0.01, "progress": False}


def model(name):
    if name == "seatbelt":
        return HierarchicalVAE((1, 8, 8), 2, channels=4, latent=2)
    return as_vae(Dropping(), encoder_output="logvar", decoder_output="logits")


def rows(name):
    shape = (1, 8, 8) if name == "seatbelt" else (6,)
    return torch.rand(40, *shape, generator=torch.Generator().manual_seed(0))


def state(vae):
    return [t.clone() for t in (*vae.parameters(), *vae.buffers())]


def same(a, b):
    return len(a) == len(b) and all(torch.equal(p, q) for p, q in zip(a, b))


STOP: list = []


@dataclass(frozen=True)
class Stopping:
    """An objective that is interrupted before its seventh step."""

    of: Objective

    def terms(self, vae, x, step):
        if step.training and STOP and STOP.pop() == 0:
            raise KeyboardInterrupt
        return self.of.terms(vae, x, step)


@pytest.mark.parametrize("name", SHORT)
def test_a_stopped_run_goes_on_to_the_bits_of_another_with_its_seed(tmp_path, name):
    path, objective = tmp_path / "run.ckpt", Stopping(SHORT[name])
    options = {**OPTIONS, "objective": objective}
    STOP[:] = range(7)
    with pytest.raises(KeyboardInterrupt):
        fit(model(name), rows(name), checkpoint=path, checkpoint_minutes=0, **options)
    STOP.clear()
    torch.manual_seed(5)  # what the caller did before does not matter
    history = fit(vae := model(name), rows(name), checkpoint=path, **options)
    undisturbed = fit(whole := model(name), rows(name), **options)
    assert history.resumed == 6
    assert history == undisturbed
    assert same(state(vae), state(whole))
    other = fit(model(name), rows(name), **{**options, "seed": 4})
    assert other.loss != undisturbed.loss


SCRIPT = """
    import os, signal, sys
    import torch
    sys.path.insert(0, sys.argv[2])
    from test_protected_runs import OPTIONS, SHORT, model, rows
    from vaefast.training import fit, run

    taken, steps = run.Run._step, []

    def killed(self, batch):
        steps.append(1)
        if len(steps) == 8:
            os.kill(os.getpid(), signal.SIGKILL)
        return taken(self, batch)

    run.Run._step = killed
    torch.set_num_threads(1)
    options = {**OPTIONS, "objective": SHORT["adversarial"], "patience": 2}
    fit(model(""), rows(""), checkpoint=sys.argv[1], checkpoint_minutes=0, **options)
"""


def test_kill_9(tmp_path):
    script, path = tmp_path / "script.py", tmp_path / "run.ckpt"
    script.write_text(textwrap.dedent(SCRIPT))
    here = os.path.dirname(os.path.abspath(__file__))
    command = [sys.executable, str(script), str(path), here]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        killed = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        options = {**OPTIONS, "objective": SHORT["adversarial"], "patience": 2}
        history = fit(vae := model(""), rows(""), checkpoint=path, **options)
        undisturbed = fit(whole := model(""), rows(""), **options)
    finally:
        torch.set_num_threads(threads)
    assert history.resumed == 7
    assert history == undisturbed
    assert same(state(vae), state(whole))


def test_settings_are_part_of_the_run(tmp_path):
    path = tmp_path / "run.ckpt"
    fit(model(""), rows(""), objective=Mixup(), checkpoint=path, **{**OPTIONS, "epochs": 1})
    with pytest.raises(ValueError, match=r"Mixup\(beta=1.0, weight=1.0, .*Mixup\(.*weight=0.5"):
        fit(model(""), rows(""), objective=Mixup(weight=0.5), checkpoint=path, **OPTIONS)
