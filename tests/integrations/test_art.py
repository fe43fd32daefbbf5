"""Our class for ART against the library's, from the same random numbers."""

import numpy as np
import pytest
import torch
from classifiers import CLASSES, Flat, Steep, images, make
from torch import nn

evasion = pytest.importorskip("art.attacks.evasion", reason="ART is not installed")
classification = pytest.importorskip("art.estimators.classification")
ours = pytest.importorskip("vaefast.integrations.art")

PER_ROW = np.linspace(0.02, 0.3, 6, dtype=np.float32).reshape(6, 1, 1, 1)
PER_ENTRY = np.linspace(0.01, 0.2, 192, dtype=np.float32).reshape(3, 8, 8)
ATTACKS = [
    {"norm": np.inf, "eps": 0.1, "eps_step": 0.03},
    {"norm": "inf", "eps": 0.1, "eps_step": 0.03, "num_random_init": 3},
    {"norm": np.inf, "eps": PER_ROW, "eps_step": PER_ROW / 3},
    {"norm": np.inf, "eps": PER_ENTRY, "eps_step": PER_ENTRY / 4},
    {"norm": np.inf, "eps": 0.1, "eps_step": 0.03, "decay": 0.8},
    {"norm": 2, "eps": 0.8, "eps_step": 0.3},
    {"norm": 2, "eps": 0.8, "eps_step": 0.3, "num_random_init": 2},
    {"norm": 2, "eps": PER_ROW, "eps_step": PER_ROW / 2},
    {"norm": 2, "eps": 0.5, "eps_step": 0.2, "decay": 1.0},
    {"norm": 1, "eps": 3.0, "eps_step": 1.0},
    {"norm": 3, "eps": 0.6, "eps_step": 0.2},
    {"norm": np.inf, "eps": 0.1, "eps_step": 0.04, "random_eps": True},
]


def estimator(model=None, scale=1.0, clip_values=(0.0, 1.0), **options):
    return classification.PyTorchClassifier(
        model=make(torch.float32, scale) if model is None else model,
        loss=nn.CrossEntropyLoss(),
        input_shape=(3, 8, 8),
        nb_classes=CLASSES,
        clip_values=clip_values,
        device_type="cpu",
        **options,
    )


def generate(module, options, *, y=None, mask=None, max_iter=6, batch_size=4, x=None, **how):
    x = images(dtype=torch.float32)[0].numpy() if x is None else x
    np.random.seed(3)  # noqa: NPY002 - the library's generator
    attack = module.ProjectedGradientDescent(
        estimator(**how), max_iter=max_iter, batch_size=batch_size, verbose=False, **options
    )
    given = {} if mask is None else {"mask": mask}
    return attack.generate(x, y, **given)


def compare(options, **how):
    mine, theirs = (generate(module, options, **how) for module in (ours, evasion))
    assert isinstance(mine, np.ndarray)
    assert mine.dtype == theirs.dtype
    off = np.abs(mine - theirs) > 2e-6  # a step may turn where a gradient is all rounding
    assert off.mean() < 0.003
    return mine


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("options", ATTACKS)
def test_equal(options, targeted):
    y = np.arange(6) % CLASSES if targeted else None
    mine = compare({**options, "targeted": targeted}, y=y)
    assert np.abs(mine - images(dtype=torch.float32)[0].numpy()).max() > 0.01


@pytest.mark.parametrize("options", ATTACKS[:9])
def test_masks_boxes_and_one_hot_labels(options):
    mask = (np.arange(192).reshape(3, 8, 8) % 3 > 0).astype(np.float32)
    one_hot = np.eye(CLASSES, dtype=np.float32)[np.arange(6) % CLASSES]
    mine = compare(options, y=one_hot, mask=mask)
    untouched = images(dtype=torch.float32)[0].numpy()[:, mask == 0]
    assert np.abs(mine[:, mask == 0] - untouched).max() < 1e-6
    compare(options, clip_values=None)
    low = np.linspace(-0.2, 0.0, 192, dtype=np.float32).reshape(3, 8, 8)
    compare(options, clip_values=(low, low + 1.2))


@pytest.mark.parametrize("options", ATTACKS[:9])
def test_gradients_of_zero_and_tiny_ones(options):
    y = np.arange(6) % CLASSES
    compare(options, scale=1e-6, y=y)
    compare(options, model=Flat(), y=y)


@pytest.mark.parametrize("options", ATTACKS[:9])
def test_gradients_that_are_not_finite(options):
    x = images(dtype=torch.float32)[0].numpy()
    x[1, 0, 0, 0] = 0.0
    compare(options, model=Steep(torch.float32), y=np.arange(6) % CLASSES, x=x)


def test_a_mean_or_a_sum_of_losses_is_the_estimators():
    class Summed(nn.CrossEntropyLoss):
        def __init__(self):
            super().__init__(reduction="sum")

    for loss in (nn.CrossEntropyLoss(), Summed(), nn.CrossEntropyLoss(label_smoothing=0.2)):
        results = []
        for module in (ours, evasion):
            model = estimator()
            model._loss = loss
            attack = module.ProjectedGradientDescent(model, norm=2, max_iter=4, verbose=False)
            results.append(attack.generate(images(dtype=torch.float32)[0].numpy()))
        assert np.abs(results[0] - results[1]).max() < 2e-6


def test_preprocessing_is_the_estimators():
    defence = {"preprocessing": ([0.4, 0.5, 0.3], [0.2, 0.3, 0.25])}
    options = ATTACKS[0]
    results = []
    for module in (ours, evasion):
        x = images(dtype=torch.float32)[0].numpy()
        attack = module.ProjectedGradientDescent(
            estimator(**defence), max_iter=5, verbose=False, **options
        )
        results.append(attack.generate(x))
    assert (np.abs(results[0] - results[1]) > 2e-6).mean() < 0.003


def test_weights_get_no_gradient_and_keep_their_flag():
    model = make(torch.float32)
    first = next(model.parameters())
    first.requires_grad_(False)
    attack = ours.ProjectedGradientDescent(estimator(model), max_iter=3, verbose=False)
    attack.generate(images(dtype=torch.float32)[0].numpy())
    assert not first.requires_grad
    assert all(p.requires_grad for p in model.parameters() if p is not first)
    assert all(p.grad is None for p in model.parameters())


def test_it_is_the_librarys_and_says_what_runs():
    attack = ours.ProjectedGradientDescent(estimator(), eps=0.1, eps_step=0.02, verbose=False)
    assert isinstance(attack, evasion.ProjectedGradientDescent)
    assert attack.attack_class is ours.ProjectedGradientDescentPyTorch
    attack.set_params(eps=0.2, max_iter=2)
    assert attack._attack.eps == 0.2
    with pytest.raises(ValueError, match="eps"):
        ours.ProjectedGradientDescent(estimator(), eps=-0.1)


def test_other_estimators_run_as_in_the_library():
    from sklearn.linear_model import LogisticRegression

    x = np.random.default_rng(0).random((12, 4)).astype(np.float32)
    fitted = classification.SklearnClassifier(
        LogisticRegression().fit(x, np.arange(12) % 2), clip_values=(0.0, 1.0)
    )
    attacks = (
        module.ProjectedGradientDescent(fitted, eps=0.2, max_iter=3, verbose=False)
        for module in (ours, evasion)
    )
    mine, theirs = (attack.generate(x) for attack in attacks)
    assert np.array_equal(mine, theirs)
