"""The merged table has the same bytes however it was computed."""

import pytest

from vaefast import jobs

SIZES = (1, 3, 64)
FEW = {"local": 5, "anchors": 2}  # inputs of the slow ones
TASKS = {
    "first_order": ("margin", {"method": "first_order", "samples": 100}),
    "local": ("margin", {"method": "local", "samples": 100}),
    "anchors": ("margin", {"method": "anchors", "samples": 100}),
    "auto": ("margin", {"method": "whitened", "samples": "auto", "budget": {"samples": 2000}}),
    "lipschitz": ("margin", {"method": "lipschitz"}),
    "empirical": (
        "empirical_margin",
        {"grid": 2, "bisections": 1, "restarts": 2, "steps": 3, "samples": 20},
    ),
    "latent": ("latent", {"eps": 0.1, "steps": 3, "restarts": 2, "init": "geometric"}),
    "max_damage": ("max_damage", {"eps": 0.5, "steps": 3}),
    "defend": ("defend", {"warmup": 5, "steps": 5, "leapfrog": 3}),
    "spectrum": ("spectrum", {}),
}


def table(run, out):
    run.work()
    return run.merge(out).read_bytes()


@pytest.mark.parametrize("name", TASKS)
def test_for_any_shard_size(plan_of, folder, name):
    task, options = TASKS[name]
    rows = FEW.get(name, 20)
    r = {"r": 0.8} if task in ("margin", "empirical_margin") else {}
    plans = [plan_of(task, options=options, shard_size=n, inputs=rows, **r) for n in SIZES]
    runs = [jobs.create(plan, folder / f"run{k}") for k, plan in enumerate(plans)]
    tables = {table(run, folder / f"{k}.parquet") for k, run in enumerate(runs)}
    assert len(tables) == 1
    assert runs[0].manifest.reproducible in ("bits", "blocks")


@pytest.mark.parametrize("task", ["robust_probability", "margin"])
def test_radii_of_one_set_of_draws_have_the_bits_of_lone_ones(plan_of, folder, task):
    """alpha of the plan is that of all radii; of the lone ones a half."""
    pq = pytest.importorskip("pyarrow.parquet")
    options = {"samples": 100} | ({"method": "local"} if task == "margin" else {})
    rows = 2 if task == "margin" else 20
    plan = plan_of(task, r=(0.4, 0.8), options=options, inputs=rows, alpha=0.02)
    run = jobs.create(plan, folder / "both")
    table(run, folder / "both.parquet")
    both = pq.read_table(folder / "both.parquet")
    for r in (0.4, 0.8):
        plan = plan_of(task, r=r, options=options, inputs=rows, alpha=0.01)
        lone = jobs.create(plan, folder / f"{r}")
        table(lone, folder / "lone.parquet")
        own = pq.read_table(folder / "lone.parquet")
        for name in set(own.column_names) - {"index", "label", "failed", "reason"}:
            theirs, ours = own[name].to_numpy(), both[f"{name}_r{r:g}"].to_numpy()
            assert theirs.tobytes() == ours.tobytes(), name
