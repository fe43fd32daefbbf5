"""docs/jobs-on-ray.md: its manifest is well formed, its options are those of the command."""

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs/jobs-on-ray.md").read_text()


@pytest.fixture(scope="module")
def manifest():
    yaml = pytest.importorskip("yaml")
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    return yaml.safe_load(text)


def test_the_manifest_is_a_ray_job_whose_nodes_see_the_run(manifest):
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", "RayJob")
    cluster = manifest["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    images = set()
    for group in groups:
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        images.add(container["image"])
        assert [v["name"] for v in pod["volumes"]] == ["shared"]
        assert container["volumeMounts"] == [{"name": "shared", "mountPath": "/shared"}]
        assert container["resources"]["limits"] == container["resources"]["requests"]
    assert len(images) == 1
    assert cluster["enableInTreeAutoscaling"] is True


def test_the_manifest_has_a_gpu_for_every_worker(manifest):
    words = shlex.split(manifest["spec"]["entrypoint"])
    assert words[:2] == ["vaefast", "certify"]
    given = dict(pairwise(words))
    (group,) = manifest["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    (container,) = group["template"]["spec"]["containers"]
    gpus = group["maxReplicas"] * int(container["resources"]["limits"]["nvidia.com/gpu"])
    taken = int(given["--workers"]) * float(given["--gpus-per-worker"])
    assert taken + manifest["spec"]["entrypointNumGpus"] == gpus  # the driver tries the task on one
