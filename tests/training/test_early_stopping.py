"""Early stopping: when it stops, which weights are left, and that a run that was killed agrees."""

import pytest
import torch
from dropping import Dropping

from vaefast.models import MLPVAE, as_vae
from vaefast.training import BetaELBO, fit


def rows(count=60):
    """Few rows of noise: a model of this size soon fits them alone."""
    return torch.rand(count, 6, generator=torch.Generator().manual_seed(0)).round()


def model():
    return MLPVAE((6,), (64, 64), 4)


OPTIONS = {"validation": 0.5, "batch_size": 10, "lr": 0.01, "progress": False}


def weights(vae):
    return [t.detach().clone() for t in (*vae.parameters(), *vae.buffers())]


def same(a, b):
    return len(a) == len(b) and all(torch.equal(p, q) for p, q in zip(a, b))


def test_it_stops_and_gives_the_best_weights_back():
    history = fit(vae := model(), rows(), epochs=60, patience=3, **OPTIONS)
    best = min(range(len(history.validation)), key=history.validation.__getitem__)
    assert history.stopped
    assert history.best_epoch == best
    assert len(history.validation) == best + 1 + 3 < 60
    assert len(history.loss) == len(history.lr) == len(history.validation)
    short = fit(other := model(), rows(), epochs=best + 1, **OPTIONS)
    assert short.validation == history.validation[: best + 1]
    assert same(weights(vae), weights(other))


def test_without_a_stop_the_best_weights_are_kept_as_well():
    full = fit(model(), rows(), epochs=12, **OPTIONS)
    assert full.best_epoch is None
    assert not full.stopped
    best = min(range(12), key=full.validation.__getitem__)
    assert best < 11
    history = fit(vae := model(), rows(), epochs=12, patience=50, **OPTIONS)
    assert history.validation == full.validation
    assert (history.best_epoch, history.stopped) == (best, False)
    fit(other := model(), rows(), epochs=best + 1, **OPTIONS)
    assert same(weights(vae), weights(other))


def test_buffers_come_back_with_the_weights():
    def normed():
        return as_vae(Dropping(), encoder_output="logvar", decoder_output="logits")

    options = {**OPTIONS, "lr": 0.3, "patience_lr": 50}
    history = fit(vae := normed(), rows(), epochs=20, patience=2, **options)
    assert history.stopped
    fit(other := normed(), rows(), epochs=history.best_epoch + 1, **options)
    assert same(weights(vae), weights(other))


class Stopping:
    """The bound, interrupted after some steps; the others as if nothing had happened."""

    def __init__(self, steps):
        self.left = steps

    def terms(self, vae, x, step):
        self.left -= step.training
        if self.left < 0:
            raise KeyboardInterrupt
        return BetaELBO().terms(vae, x, step)


def test_a_run_that_was_killed_stops_at_the_same_epoch(tmp_path):
    path, options = tmp_path / "run.ckpt", {**OPTIONS, "epochs": 60, "patience": 3}
    whole = fit(undisturbed := model(), rows(), objective=Stopping(9999), **options)
    for stop in ((len(whole.loss) - 2) * 3, 1):  # after the best epoch, and before the end
        given = {**options, "objective": Stopping(stop), "checkpoint": path}
        with pytest.raises(KeyboardInterrupt):
            fit(model(), rows(), checkpoint_minutes=0, **given)
    for _ in range(2):  # the second call finds the run ended
        history = fit(vae := model(), rows(), objective=Stopping(9999), checkpoint=path, **options)
        assert history == whole
        assert history.resumed > 0
        assert same(weights(vae), weights(undisturbed))


def test_it_is_part_of_the_run(tmp_path):
    path = tmp_path / "run.ckpt"
    fit(model(), rows(), epochs=1, patience=3, checkpoint=path, **OPTIONS)
    with pytest.raises(ValueError, match="early stopping 3, this one has 4"):
        fit(model(), rows(), epochs=1, patience=4, checkpoint=path, **OPTIONS)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"patience": 0}, ValueError, "patience must be at least 1, got 0"),
        ({"patience": 1.5}, TypeError, "patience must be a whole number"),
        ({"patience": 2, "validation": 0.0}, ValueError, "no row is held out for it; pass valid"),
    ],
)
def test_mistakes(given, error, words):
    with pytest.raises(error, match=words):
        fit(model(), rows(), epochs=1, **{**OPTIONS, **given})
