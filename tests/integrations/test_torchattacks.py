"""Our torchattacks classes against the library's, from the same random numbers."""

import pytest
import torch
from classifiers import CLASSES, Flat, Steep, images, make

library = pytest.importorskip("torchattacks", reason="torchattacks is not installed")
ours = pytest.importorskip("vaefast.integrations.torchattacks")

ATTACKS = [
    ("PGD", {"eps": 0.1, "alpha": 0.03, "steps": 7}),
    ("PGD", {"eps": 0.1, "alpha": 0.03, "steps": 7, "random_start": False}),
    ("PGD", {"steps": 0}),
    ("PGDL2", {"eps": 0.6, "alpha": 0.2, "steps": 7}),
    ("PGDL2", {"eps": 0.6, "alpha": 0.2, "steps": 5, "random_start": False}),
    ("PGDL2", {"steps": 6, "eps_for_division": 0.3}),
    ("FGSM", {"eps": 0.05}),
    ("MIFGSM", {"eps": 0.1, "alpha": 0.03, "steps": 7, "decay": 0.7}),
]
APGD = [
    {"norm": "Linf", "eps": 0.05, "steps": 20},
    {"norm": "L2", "eps": 0.5, "steps": 20},
    {"norm": "Linf", "eps": 0.02, "steps": 60, "loss": "dlr", "n_restarts": 2, "rho": 0.6},
    {"norm": "L2", "eps": 0.4, "steps": 9, "eot_iter": 3, "seed": 4},
    {"norm": "Linf", "eps": 0.5, "steps": 1},
]
MODES = ["default", "label", "function", "random", "least"]


def run(module, name, options, mode="default", scale=1.0, dtype=torch.float64, model=None):
    model = make(dtype, scale) if model is None else model
    attack = getattr(module, name)(model, **options)
    if mode == "label":
        attack.set_mode_targeted_by_label(quiet=True)
    if mode == "function":
        attack.set_mode_targeted_by_function(lambda x, y: (y + 1) % CLASSES, quiet=True)
    if mode == "random":
        attack.set_mode_targeted_random(quiet=True)
    if mode == "least":
        attack.set_mode_targeted_least_likely(quiet=True)
    torch.manual_seed(5)
    x, labels = images(dtype=dtype)
    return attack(x, labels), x


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("name", "options"), ATTACKS)
def test_equal(name, options, mode):
    mine, x = run(ours, name, options, mode)
    theirs, _ = run(library, name, options, mode)
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)
    moved = options.get("steps", 1) > 0 or options.get("random_start", True)
    assert bool((mine - x).abs().max() > 0.01) == moved


@pytest.mark.parametrize("scale", [1.0, 30.0])
@pytest.mark.parametrize("options", APGD)
def test_apgd_is_equal(options, scale):
    mine, _ = run(ours, "APGD", options, scale=scale)
    theirs, _ = run(library, "APGD", options, scale=scale)
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("options", APGD)
def test_one_run_of_apgd_is_equal(options):
    x, labels = images()
    results = []
    for module in (ours, library):
        attack = module.APGD(make(), **options)
        torch.manual_seed(3)
        results.append(attack.attack_single_run(x, labels))
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-12, check_dtype=False)


def test_apgd_halves_and_goes_back():
    """The cases above hold rows that do; with every step rising nothing would be compared."""
    from vaefast.attacks.apgd import AutoAscent

    sizes = []
    keep = AutoAscent.keep

    def record(self, *state):
        keep(self, *state)
        sizes.append(self.kept[0])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AutoAscent, "keep", record)
        run(ours, "APGD", APGD[2])
    rows = [sizes[0].new_tensor(0.04)] + [size for step in sizes for size in step]
    halved = {round(float(size / rows[0]), 6) for size in rows}
    assert {1.0, 0.5, 0.25} <= halved


@pytest.mark.parametrize(("name", "options"), ATTACKS)
def test_equal_in_float32(name, options):
    mine, _ = run(ours, name, options, dtype=torch.float32)
    theirs, _ = run(library, name, options, dtype=torch.float32)
    off = (mine - theirs).abs() > 2e-6  # a step may turn where a gradient is all rounding
    assert off.float().mean() < 0.002


@pytest.mark.parametrize(("name", "options"), ATTACKS)
def test_gradients_of_zero_and_tiny_ones(name, options):
    for scale in (0.0, 1e-9):  # 0 over 0 is NaN in MIFGSM
        mine, _ = run(ours, name, options, scale=scale)
        theirs, _ = run(library, name, options, scale=scale)
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12, equal_nan=True)
    mine, _ = run(ours, name, options, model=Flat())
    theirs, _ = run(library, name, options, model=Flat())
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize(("name", "options"), [*ATTACKS, ("APGD", APGD[0]), ("APGD", APGD[1])])
def test_gradients_that_are_not_finite(name, options):
    results = []
    for module in (ours, library):
        x, labels = images()
        x[1, 0, 0, 0], x[2, 0, 0, 0] = 0.0, torch.nan
        attack = getattr(module, name)(Steep(), **options)
        torch.manual_seed(2)
        results.append(attack(x, labels))
    torch.testing.assert_close(*results, rtol=0, atol=1e-12, equal_nan=True)
    assert results[0].isnan().any() or options.get("steps") == 0


def test_normalised_inputs_and_training_mode():
    results = []
    for module in (ours, library):
        model = make().train()
        attack = module.PGD(model, eps=0.1, alpha=0.03, steps=4)
        attack.set_normalization_used(mean=[0.4, 0.5, 0.3], std=[0.2, 0.3, 0.25])
        torch.manual_seed(2)
        x, labels = images()
        results.append(attack(attack.normalize(x), labels))
        assert model.training
        assert all(p.grad is None for p in model.parameters())
    torch.testing.assert_close(*results, rtol=0, atol=1e-12)


def test_the_generator_is_left_as_the_library_leaves_it():
    after = []
    for module in (ours, library):
        run(module, "PGDL2", {"steps": 2})
        after.append(torch.rand(3))
    assert torch.equal(*after)


def test_they_are_the_librarys_and_take_their_place():
    model = make()
    attack = ours.PGD(model, eps=0.1)
    assert isinstance(attack, library.PGD)
    assert isinstance(attack, library.attack.Attack)
    multi = library.MultiAttack([attack, ours.APGD(model, steps=5)])
    x, labels = images()
    assert multi(x, labels).shape == x.shape
    with pytest.raises(ValueError, match="not supported"):
        ours.APGD(make()).set_mode_targeted_by_label()


def test_a_radius_that_is_no_number_goes_to_the_library():
    eps = torch.full((1, 3, 1, 1), 0.05, dtype=torch.float64)
    options = {"eps": eps, "alpha": 0.03, "steps": 3, "random_start": False}
    mine, _ = run(ours, "PGD", options)
    theirs, _ = run(library, "PGD", options)
    torch.testing.assert_close(mine, theirs, rtol=0, atol=0)
