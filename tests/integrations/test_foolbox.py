"""Our foolbox classes against the library's, from the same random numbers."""

import pytest
import torch
from classifiers import CLASSES, Flat, Steep, images, make

fb = pytest.importorskip("foolbox", reason="foolbox is not installed")
ours = pytest.importorskip("vaefast.integrations.foolbox")
library = fb.attacks

ATTACKS = [
    ("LinfPGD", {"steps": 7}),
    ("LinfPGD", {"steps": 7, "random_start": False, "abs_stepsize": 0.02}),
    ("PGD", {"steps": 3, "rel_stepsize": 0.4}),
    ("L2PGD", {"steps": 7}),
    ("L2PGD", {"steps": 7, "random_start": False, "abs_stepsize": 0.2}),
    ("L2PGD", {"steps": 0}),
    ("LinfBasicIterativeAttack", {}),
    ("L2BasicIterativeAttack", {"random_start": True}),
    ("FGSM", {}),
    ("FGSM", {"random_start": True}),
    ("FGM", {}),
    ("L1PGD", {"steps": 5}),
    ("MIFGSM", {"steps": 5}),
    ("LinfAdamPGD", {"steps": 5}),
    ("L2AdamPGD", {"steps": 5}),
]
BOUNDS = (-0.5, 1.0)


def criterion(labels, targeted):
    if targeted:
        return fb.criteria.TargetedMisclassification((labels + 1) % CLASSES)
    return labels


def run(attack, model=None, *, targeted=False, scale=1.0, dtype=torch.float64, epsilon=0.3):
    x, labels = images(dtype=dtype)
    wrapped = fb.PyTorchModel(make(dtype, scale) if model is None else model, BOUNDS)
    torch.manual_seed(5)
    return attack.run(wrapped, x, criterion(labels, targeted), epsilon=epsilon)


def both(name, options, **how):
    attacks = (getattr(module, name)(**options) for module in (ours, library))
    return [run(attack, **how) for attack in attacks]


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize(("name", "options"), ATTACKS)
def test_equal(name, options, targeted):
    if targeted and name in ("FGSM", "FGM"):
        with pytest.raises(ValueError, match="unsupported criterion"):
            both(name, options, targeted=targeted)
        return
    mine, theirs = both(name, options, targeted=targeted)
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)
    assert (mine - images()[0]).abs().max() > 0.005


@pytest.mark.parametrize(("name", "options"), ATTACKS)
def test_equal_in_float32(name, options):
    mine, theirs = both(name, options, dtype=torch.float32)
    assert mine.dtype == torch.float32
    assert ((mine - theirs).abs() > 2e-6).float().mean() < 0.002


@pytest.mark.parametrize(("name", "options"), ATTACKS)
def test_gradients_of_zero_and_tiny_ones(name, options):
    for how in ({"scale": 1e-9}, {"scale": 1e-14}, {"model": Flat()}):
        mine, theirs = both(name, options, **how)
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "options"), ATTACKS)
def test_gradients_that_are_not_finite(name, options):
    mine, theirs = both(name, options, model=Steep())
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("name", ["LinfPGD", "L2PGD"])
def test_several_epsilons_and_preprocessing(name):
    x, labels = images(dtype=torch.float32)
    preprocessing = {"mean": [0.4, 0.5, 0.3], "std": [0.2, 0.3, 0.25], "axis": -3}
    model = fb.PyTorchModel(make(torch.float32), (0, 1), preprocessing=preprocessing)
    results = []
    for module in (ours, library):
        torch.manual_seed(1)
        results.append(getattr(module, name)(steps=5)(model, x, labels, epsilons=[0.01, 0.2]))
    for mine, theirs in zip(*results, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            assert ((a.float() - b.float()).abs() > 2e-6).float().mean() < 0.002


def test_no_weight_gets_a_gradient():
    model = make()
    run(ours.LinfPGD(steps=2), model)
    assert all(p.grad is None for p in model.parameters())
    run(library.LinfPGD(steps=2), model)
    assert all(p.grad is not None for p in model.parameters())  # what it costs there


@pytest.mark.parametrize("method", ["get_loss_fn", "normalize", "project", "value_and_grad"])
def test_what_a_subclass_overrides_counts(method):
    def changed(base):
        own = getattr(base, method)

        def other(self, *args, **kwargs):
            result = own(self, *args, **kwargs)
            if method == "get_loss_fn":
                return lambda x: -result(x)
            return (result[0], -result[1]) if method == "value_and_grad" else 0.5 * result

        return type("Changed", (base,), {method: other})

    mine, theirs = (run(changed(module.L2PGD)(steps=4)) for module in (ours, library))
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)
    assert (mine - run(ours.L2PGD(steps=4))).abs().max() > 1e-3


def test_inputs_are_checked_as_in_the_library():
    x, labels = images()
    model = fb.PyTorchModel(make(), (0.2, 1.0))
    with pytest.raises(AssertionError):
        ours.LinfPGD().run(model, x, labels, epsilon=0.1)
    with pytest.raises(TypeError, match="unexpected keyword"):
        ours.LinfPGD().run(fb.PyTorchModel(make(), (0, 1)), x, labels, epsilon=0.1, steps=3)
    assert isinstance(ours.L2PGD(), library.L2PGD)
    assert ours.L2PGD().distance is library.L2PGD().distance
