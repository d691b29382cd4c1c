"""What a driver learns of an autoscaler: from real monitors' logs, and from shipped profiles."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from autoscaling_cluster import autoscaling_cluster

from cluster.library import profile_names, read_profile
from cluster.render import render
from orchestrator.connection.autoscaler import Growth, NodeShape, growth_of, last_configuration

TYPES = {
    "two": {"max": 3, "CPU": 4, "GPU": 2, "memory": 3_000_000_000},
    "big": {
        "max": 1,
        "CPU": 8,
        "GPU": 4,
        "labels": {"ray.io/accelerator-type": "A100", "depthsweep/gpu-gib": "80"},
    },
}
ROOT = Path(__file__).parents[3]
ASKED = """
import dataclasses, json, sys
from orchestrator.connection.autoscaler import growth, nodes_by_type
from orchestrator.connection.ray_environment import ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
said = growth()
if said and sys.argv[2:] == ["grow"]:
    group = ray.util.placement_group([{"GPU": 1, "memory": 2_000_000_000}])
    ray.get(group.ready(), timeout=60)
    said = growth()
left = {shape.name: count for shape, count in said.left(nodes_by_type()).items()} if said else None
print(json.dumps([said and dataclasses.asdict(said), left]))
"""


def asked(cluster, *arguments):
    told = subprocess.run(
        [sys.executable, "-c", ASKED, cluster.address, *arguments],
        cwd=ROOT,
        env=cluster.environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert told.returncode == 0, told.stderr
    return json.loads(told.stdout.splitlines()[-1])


@pytest.mark.parametrize("version", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_what_may_come_is_known_before_any_node_is_there_and_less_once_one_is(version):
    with autoscaling_cluster(TYPES, version=version) as cluster:
        said, left = asked(cluster)
        assert {shape["name"]: shape for shape in said["shapes"]} == {
            "two": {
                "name": "two",
                "cpus": 4,
                "gpus": 2,
                "memory": 3_000_000_000,
                "accelerator": None,
                "gpu_gib": None,
                "most": 3,
            },
            "big": {
                "name": "big",
                "cpus": 8,
                "gpus": 4,
                "memory": None,
                "accelerator": "A100",
                "gpu_gib": 80.0,
                "most": 1,
            },
        }
        assert (said["most"], left) == (4, {"two": 3, "big": 1})
        # Asked again, the log has grown. A demand for memory brings the type that says its own.
        again, left = asked(cluster, "grow")
        assert (again, left) == (said, {"two": 2, "big": 1})
        assert list(cluster.machines().values()) == ["two"]


@pytest.mark.slow
def test_a_head_whose_monitor_can_start_nothing_does_not_grow():
    with autoscaling_cluster(TYPES, version=None) as cluster:
        assert asked(cluster) == [None, None]


V2 = (
    "2026-11-26 02:58:11,1\tINFO autoscaler.py:73 -- Using Autoscaling Config: \n"
    + """
available_node_types:
  head: {max_workers: 0, resources: {CPU: 0}}
  new: {max_workers: 2, resources: {CPU: 1}}
head_node_type: head
provider: {type: external}

2026-11-26 02:58:12,0\tINFO monitor.py:1 -- {next: line}
"""
)


def test_the_last_configuration_of_a_log_counts():
    assert last_configuration(V2 + V2.replace("new:", "newer:"))["available_node_types"].keys() == {
        "head",
        "newer",
    }
    line = "2026-11-26 03:00:03,0\tINFO autoscaler.py:361 -- StandardAutoscaler: {'max_workers': 7}"
    assert last_configuration(V2 + line + '\n2026-11-26 03:00:04,0\tINFO x.py:1 -- {"a": 1}\n') == {
        "max_workers": 7
    }
    assert last_configuration("2026-11-26 03:00:04,0\tINFO x.py:1 -- nothing\n") is None


def test_many_nodes_of_a_type_are_bounded_by_what_all_types_may_have_together():
    small = NodeShape("small", 8, 1, None, "L4", 24.0, 16)
    large = NodeShape("large", 96, 8, None, "A100-80G", 80.0, 2)
    growth = Growth((small, large), most=10)
    assert growth.left({}) == {small: 10, large: 2}
    assert growth.left({"small": 7, "head": 1}) == {small: 3, large: 2}
    assert growth.left({"small": 7, "large": 2}) == {small: 1}
    assert growth.left({"small": 10}) == {}


@pytest.mark.parametrize(
    "change",
    [
        {"provider": {"type": "readonly"}},
        {"max_workers": 0},
        {"available_node_types": {"head": {"max_workers": 0, "resources": {"CPU": 8}}}},
    ],
)
def test_a_configuration_that_brings_nothing_is_no_growth(change):
    configuration = last_configuration(V2)
    assert growth_of(configuration).most == 2
    assert growth_of({**configuration, **change}) is None


def configuration(profile):
    """What the autoscaler of a profile's cluster is told, by Ray's own reading of the file."""
    documents = list(yaml.safe_load_all(render(profile)))
    if profile.kind != "kuberay":
        from ray.autoscaler._private.util import prepare_config

        return prepare_config(documents[0])
    from ray.autoscaler._private.kuberay.autoscaling_config import (
        _derive_autoscaling_config_from_ray_cr,
    )

    job = documents[1]
    return _derive_autoscaling_config_from_ray_cr(
        {"metadata": job["metadata"], "spec": job["spec"]["rayClusterSpec"]}
    )


@pytest.mark.parametrize(
    "name", [name for name in profile_names() if hasattr(read_profile(name), "workers")]
)
def test_the_cluster_of_a_profile_tells_its_driver_what_the_profile_says(name):
    profile = read_profile(name)
    if name == "static":
        assert growth_of(configuration(profile)) is None
        return
    growth = growth_of(configuration(profile))
    assert growth.left({}).keys() == set(growth.shapes)
    assert sum(shape.most * shape.gpus for shape in growth.shapes) == profile.most_gpus
    said = {worker.name: worker for worker in profile.workers}
    assert {shape.name for shape in growth.shapes} == said.keys()
    for shape in growth.shapes:
        worker = said[shape.name]
        assert (shape.cpus, shape.gpus, shape.most) == (worker.cpus, worker.gpus, worker.max)
        assert shape.gpu_gib == worker.gpu_gib
        # Runs ask for both, and a type that does not say them never comes.
        assert shape.memory > 16 << 30
        assert shape.accelerator
