"""A run that was killed goes on as if nothing had happened, and no other run does."""

import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass

import pytest
import torch
from dropping import Dropping

from vaefast import data
from vaefast.models import MLPVAE, as_vae
from vaefast.training import BetaELBO, fit

SCRIPT = """
    import os, signal, sys
    import torch
    sys.path.insert(0, sys.argv[3])
    from test_checkpoint import model, rows, options
    from vaefast.training import objectives, fit

    steps, terms = [], objectives.elbo_terms

    def killed(*arguments):
        steps.append(1)
        if len(steps) == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return terms(*arguments)

    objectives.elbo_terms = killed
    torch.set_num_threads(1)
    fit(model(), rows(), checkpoint=sys.argv[1], checkpoint_minutes=0, **options())
"""


def model():
    return as_vae(Dropping(), encoder_output="logvar", decoder_output="logits")


def rows():
    return torch.rand(40, 6, generator=torch.Generator().manual_seed(0))


def options(**changes):
    """Seven epochs of four steps, with a rate that falls."""
    fixed = {"epochs": 7, "batch_size": 10, "seed": 3, "lr": 0.05, "patience_lr": 0}
    return {**fixed, "objective": "beta", "beta": 2.0, "progress": False, **changes}


def state(vae):
    return [t.clone() for t in (*vae.parameters(), *vae.buffers())]


def same(a, b):
    return len(a) == len(b) and all(torch.equal(p, q) for p, q in zip(a, b))


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_a_killed_run_goes_on_to_the_bits_of_an_undisturbed_one(tmp_path, one_thread):
    script, path = tmp_path / "script.py", tmp_path / "run.ckpt"
    script.write_text(textwrap.dedent(SCRIPT))
    here = os.path.dirname(os.path.abspath(__file__))
    command = [sys.executable, str(script), str(path), "19", here]
    killed = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    vae, whole = model(), model()
    history = fit(vae, rows(), checkpoint=path, **options())
    undisturbed = fit(whole, rows(), **options())
    assert 0 < history.resumed < 28
    assert history == undisturbed
    assert undisturbed.resumed == 0
    assert min(history.lr) < max(history.lr)
    assert same(state(vae), state(whole))


@dataclass(frozen=True)
class Stopping:
    """The bound, interrupted before the step with a given number; a caller's own objective."""

    beta: float
    steps: tuple = ()

    def terms(self, vae, x, step):
        if step.training and self.steps and STOP.pop() == 0:
            raise KeyboardInterrupt
        return BetaELBO(self.beta).terms(vae, x, step)


STOP: list = []


@pytest.mark.parametrize("stop", [0, 1, 3, 4, 5, 8, 27])
def test_every_place_to_stop_at(tmp_path, stop):
    path, vae, whole = tmp_path / "run.ckpt", model(), model()
    objective = Stopping(1.5, ("watched",))
    STOP[:] = list(range(stop + 1))
    with pytest.raises(KeyboardInterrupt):
        fit(vae, rows(), checkpoint=path, checkpoint_minutes=0, **own(objective))
    STOP[:] = [1] * 100
    history = fit(other := model(), rows(), checkpoint=path, **own(objective))
    assert history.resumed == stop
    assert fit(whole, rows(), **own(Stopping(1.5))) == history
    assert same(state(other), state(whole))


def own(objective):
    return {**options(objective=objective), "beta": 1.0}


def test_more_epochs_go_on_from_the_end(tmp_path):
    path, vae, whole = tmp_path / "run.ckpt", model(), model()
    fit(vae, rows(), checkpoint=path, **options(epochs=3))
    again = fit(model(), rows(), checkpoint=path, **options(epochs=3))
    assert again.resumed == 12
    history = fit(other := model(), rows(), checkpoint=path, **options())
    assert fit(whole, rows(), **options()) == history
    assert same(state(other), state(whole))
    with pytest.raises(ValueError, match="epochs must be at least the 7 that the checkpoint has"):
        fit(model(), rows(), checkpoint=path, **options(epochs=3))


def test_it_stands_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "run.ckpt"
    fit(model(), rows(), checkpoint=path, **options(epochs=1))
    before = path.read_bytes()

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        fit(model(), rows(), checkpoint=path, **options(epochs=2))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.ckpt"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"beta": 3.0}, r"is of a run with objective BetaELBO\(beta=2.0\), this one has .*3.0\)"),
        ({"objective": "tcvae"}, r"objective BetaELBO\(beta=2.0\), this one has TCVAE\(beta=2.0"),
        ({"seed": 4}, "of a run with seed 3, this one has 4; name another file, or delete it"),
        ({"batch_size": 20}, "batch_size 10, this one has 20"),
        ({"lr": 0.1}, "lr 0.05, this one has 0.1"),
        ({"validation": 0.2}, "validation 0.1, this one has 0.2"),
        ({"x": rows() / 2}, "of a run with data "),
        ({"vae": MLPVAE((6,), (8,), 2)}, "of a run with other parameters"),
    ],
)
def test_another_run_is_refused(tmp_path, change, words):
    path = tmp_path / "run.ckpt"
    fit(model(), rows(), checkpoint=path, **options(epochs=1))
    change = {"vae": model(), "x": rows(), **change}
    with pytest.raises(ValueError, match=words) as error:
        fit(change.pop("vae"), change.pop("x"), checkpoint=path, **options(**change))
    assert "\n" not in str(error.value)


def test_a_damaged_or_foreign_file_is_refused(tmp_path):
    path = tmp_path / "run.ckpt"
    path.write_bytes(b"nothing of ours")
    with pytest.raises(ValueError, match=r"cannot be read .* delete it to start anew"):
        fit(model(), rows(), checkpoint=path, **options())
    from vaefast.models import save

    save(MLPVAE((6,), (8,), 2), path)
    with pytest.raises(ValueError, match=r"is no run of training\.fit"):
        fit(model(), rows(), checkpoint=path, **options())


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"checkpoint": "no/such/run.ckpt"}, OSError, "has no folder"),
        ({"checkpoint": "."}, OSError, "is a folder; name a file in it"),
        ({"checkpoint": 3}, TypeError, "must be the path of a file, got int"),
        ({"checkpoint": "a", "checkpoint_minutes": -1}, ValueError, "at least 0 and finite"),
    ],
)
def test_mistakes(tmp_path, monkeypatch, given, error, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=words):
        fit(model(), rows(), **options(), **given)


class Mixed:
    """A user's objective with random numbers of every kind."""

    def terms(self, vae, x, step):
        share, order = step.uniform(x[:, :1]), step.permutation(x)
        assert sorted(order.tolist()) == list(range(len(x)))
        mixed = share * x + (1 - share) * x[order]
        return {**BetaELBO().terms(vae, mixed, step), "share": share.mean()}


def test_an_objective_of_the_callers_own():
    histories = [fit(MLPVAE((6,), (8,), 2), rows(), objective=Mixed(), epochs=2) for _ in "ab"]
    assert histories[0] == histories[1]
    assert set(histories[0].terms) == {"reconstruction", "kl", "share"}
    assert all(0.2 < share < 0.8 for share in histories[0].terms["share"])


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"objective": object()}, TypeError, r"or have terms\(vae, x, step\) -> dict, got object"),
        ({"objective": Mixed(), "beta": 2.0}, ValueError, "give the object its own weights"),
        ({"objective": type("No", (), {"terms": lambda *a: {}})()}, TypeError, "No.terms must"),
    ],
)
def test_objectives_that_are_none(given, error, words):
    with pytest.raises(error, match=words):
        fit(MLPVAE((6,), (8,), 2), rows(), epochs=1, **given)


def test_the_history_has_the_terms_of_the_loss():
    x = data.load("digits").x_train[:200]
    history = fit(MLPVAE((1, 8, 8), (32,), 4), x, epochs=2)
    loss = [kl - logp for kl, logp in zip(history.terms["kl"], history.terms["reconstruction"])]
    assert loss == pytest.approx(history.loss)
