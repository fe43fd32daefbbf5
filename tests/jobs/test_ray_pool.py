"""Handing shards to actors of Ray, without Ray: losses, refusals, room, and the end."""

import random
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray_fake import FakeRay, RayActorError

from vaefast.jobs import ray_pool
from vaefast.jobs.ray import RayOptions, _room
from vaefast.jobs.ray_pool import Pool, Share, shortage

ONE = Share(1, 0)


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """A second passes whenever the pool looks at the time."""
    now = [0.0]

    def monotonic():
        now[0] += 1.0
        return now[0]

    monkeypatch.setattr(
        ray_pool, "time", SimpleNamespace(monotonic=monotonic, sleep=lambda seconds: None)
    )


def pool(ray, workers=3, attempts=10**6, **options):
    plan = SimpleNamespace(attempts=attempts)
    run = SimpleNamespace(folder=Path("run"), manifest=SimpleNamespace(plan=plan, shards=99))
    found = SimpleNamespace(done=[], told=[])
    made = Pool(ray, ray, run, workers, ONE, found.done.append, found.told.append, **options)
    return made, found


@pytest.mark.parametrize("seed", range(20))
def test_every_shard_is_done_once_whoever_is_lost(seed):
    """A worker may be lost before its shard is written, or after it and before it says so."""
    numbers, written = random.Random(seed), []

    def work(number):
        fate = numbers.random()
        if fate < 0.2:
            raise RayActorError("lost before")
        if number in written:
            return "there"
        written.append(number)
        if fate < 0.3:
            raise RayActorError("lost after")
        return "written"

    ray = FakeRay(work, seed=seed)
    made, found = pool(ray, workers=numbers.randint(1, 6), in_flight=numbers.randint(1, 4))
    made.work(list(range(50)))
    assert sorted(written) == list(range(50))
    assert sorted(one.shard for one in found.done) == list(range(50))
    assert not ray.alive()


def test_a_shard_that_takes_its_workers_with_it_is_given_up_and_named():
    def work(number):
        if number == 7:
            raise RayActorError("out of memory")
        return "written"

    ray = FakeRay(work)
    made, found = pool(ray, attempts=3)
    with pytest.raises(
        RuntimeError, match="1 of 99 shards were given up, the first 7: its worker was lost, 3"
    ):
        made.work(list(range(20)))
    assert sorted(one.shard for one in found.done) == [n for n in range(20) if n != 7]
    assert sum("out of memory" in line for line in found.told) == 3


def test_a_shard_that_raises_is_given_up_with_its_reason_and_the_worker_goes_on():
    def work(number):
        if number == 4:
            raise ValueError("no such column")
        return "written"

    ray = FakeRay(work)
    made, found = pool(ray, workers=2, attempts=2)
    with pytest.raises(RuntimeError, match="the first 4: no such column, 2 times; the others are"):
        made.work(list(range(9)))
    assert sorted(one.shard for one in found.done) == [n for n in range(9) if n != 4]
    assert len(ray.handles) == 2


def test_a_shard_that_waited_behind_the_guilty_one_is_not_blamed():
    first = []

    def work(number):
        if number < 3 and first.count(number) < 2:
            first.append(number)
            raise RayActorError("lost")
        return "written"

    made, found = pool(FakeRay(work), workers=1, attempts=3)
    made.work(list(range(12)))
    assert sorted(one.shard for one in found.done) == list(range(12))
    assert all(made.failures[number] == 2 * (number < 3) for number in range(12))


@pytest.mark.parametrize("in_flight", [1, 2, 5])
def test_no_actor_has_more_than_it_may(in_flight):
    ray = FakeRay(lambda number: "written")
    made, _ = pool(ray, workers=4, in_flight=in_flight)
    made.work(list(range(60)))
    assert ray.most_in_flight == in_flight
    assert ray.most_alive == 4


def test_towards_the_end_no_shard_waits_behind_another():
    ray = FakeRay(lambda number: "written")
    made, _ = pool(ray, workers=4, in_flight=5)
    made.work([0, 1, 2, 3])
    assert ray.most_in_flight == 1
    assert ray.most_alive == 4


def test_actors_are_asked_for_and_let_go_as_the_queue_needs():
    alive = []

    def done_by(ray):
        return lambda one: alive.append(len(ray.alive()))

    ray = FakeRay(lambda number: "written")
    made, _ = pool(ray, workers=8)
    made.done = done_by(ray)
    made.work([0, 1, 2])
    assert ray.most_alive == 3
    assert alive[-1] < 3


def test_a_shard_that_another_holds_is_asked_for_again():
    asked = []

    def work(number):
        asked.append(number)
        return "held" if number == 1 and asked.count(1) < 4 else "there"

    made, found = pool(FakeRay(work))
    made.work([0, 1, 2])
    assert asked.count(1) == 4
    assert sorted(one.shard for one in found.done) == [0, 1, 2]


def test_a_worker_of_other_versions_is_refused_and_keeps_its_place():
    def start(name):
        if name == 0:
            raise ValueError("torch: 2.13.0 there, 2.12.0 here")
        return "host"

    ray = FakeRay(lambda number: "written", start=start)
    made, found = pool(ray, workers=2)
    made.work(list(range(10)))
    assert len(found.done) == 10
    assert found.told == ["a worker is refused: torch: 2.13.0 there, 2.12.0 here"]
    assert len(ray.handles) == 2
    assert not ray.alive()


def test_when_all_workers_are_refused_the_reason_ends_the_run():
    def start(name):
        raise ValueError("torch: 2.13.0 there, 2.12.0 here")

    ray = FakeRay(lambda number: "written", start=start)
    made, _ = pool(ray, workers=2)
    with pytest.raises(ValueError, match=r"^torch: 2\.13\.0 there, 2\.12\.0 here$"):
        made.work([0, 1, 2])
    assert not ray.alive()


def test_workers_that_cannot_begin_end_the_run():
    def start(name):
        raise RayActorError("No module named 'vaefast'")

    made, _ = pool(FakeRay(lambda number: "written", start=start))
    with pytest.raises(RuntimeError, match="3 workers ended while they began: No module named"):
        made.work([0])


def test_what_a_worker_could_not_write_ends_the_run():
    def work(number):
        raise OSError(28, "the disk is full; free some space, then vaefast jobs resume goes on")

    ray = FakeRay(work)
    with pytest.raises(OSError, match="the disk is full"):
        pool(ray)[0].work([0, 1])
    assert not ray.alive()


def test_no_actor_is_left_when_the_caller_is_stopped():
    ray = FakeRay(lambda number: "written")
    made, _ = pool(ray)

    def stop(one):
        raise KeyboardInterrupt

    made.done = stop
    with pytest.raises(KeyboardInterrupt):
        made.work(list(range(9)))
    assert not ray.alive()


def test_a_full_cluster_is_waited_for_and_said_to_be_full():
    ray = FakeRay(lambda number: "written", room=0)
    made, found = pool(ray)
    told = found.told.append

    def tell(line):
        told(line)
        ray.room = 2  # whoever was there before has gone

    made.tell = tell
    made.work([0, 1, 2])
    assert len(found.done) == 3
    (line,) = found.told
    assert "3 begin (imports, the model, kernels) or wait for room" in line
    assert "each asks for 1 CPU and 0 GPU, Ray has 0 of 4 CPU and 0 of 0 GPU free" in line


def test_a_node_that_never_comes_is_given_up():
    ray = FakeRay(lambda number: "written", room=0, sizes=({"CPU": 0.5},))
    made, _ = pool(ray, wait_for_nodes=90.0)
    with pytest.raises(ValueError, match="no worker fits on Ray's nodes: each asks for 1 CPU"):
        made.work([0])
    assert not ray.alive()


@pytest.mark.parametrize(
    ("share", "sizes", "count"),
    [
        (Share(1, 0), [{"CPU": 2.0}], 2),
        (Share(1, 0), [{"CPU": 2.0}, {"CPU": 1.0, "GPU": 8.0}, {}], 3),
        (Share(2, 0.5), [{"CPU": 64.0, "GPU": 8.0}], 16),
        (Share(0, 1), [{"CPU": 1.0, "GPU": 2.0}], 2),
    ],
)
def test_as_many_workers_as_fit(share, sizes, count):
    told = []
    ray = FakeRay(None, sizes=sizes)
    assert _room(ray, share, None, 0.0, told.append) == count
    assert _room(ray, share, count, 0.0, told.append) == count
    assert not told
    assert _room(ray, share, count + 2, 0.0, told.append) == count + 2
    assert f"room for {count} of {count + 2} workers" in told[0]


def test_what_is_missing_and_what_to_pass():
    ray = FakeRay(None, sizes=[{"CPU": 2.0}])
    with pytest.raises(ValueError, match="--cpus-per-worker 2") as raised:
        _room(ray, Share(3, 0), None, 0.0, None)
    assert "\n" not in str(raised.value)
    assert "nodes with GPUs" in shortage(Share(1, 1), [{"CPU": 2.0}])
    assert "--gpus-per-worker 1" in shortage(Share(1, 2), [{"CPU": 2.0, "GPU": 1.0}])
    assert _room(ray, Share(3, 0), None, 60.0, None) == 1
    assert _room(ray, Share(3, 0), 8, 60.0, lambda line: None) == 8


def test_shares_are_those_of_the_device():
    assert RayOptions().share("cpu") == (1, 0)
    assert RayOptions().share("cuda") == (1, 1)
    assert RayOptions(gpus_per_worker=0.5, cpus_per_worker=4).share("cuda") == (4, 0.5)
    with pytest.raises(ValueError, match="the run computes on the CPU"):
        RayOptions(gpus_per_worker=1).share("cpu")
    with pytest.raises(ValueError, match="pass a part of 1"):
        RayOptions(gpus_per_worker=0).share("cuda")
    with pytest.raises(ValueError, match="gpus_per_worker must be a part of one or whole"):
        RayOptions(gpus_per_worker=1.5)
    with pytest.raises(ValueError, match="in_flight"):
        RayOptions(in_flight=0)
