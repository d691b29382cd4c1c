"""Node types and groups of pods: what an autoscaler is told of a node before it is there."""

import pytest
from pydantic import ValidationError

from cluster import autoscaler
from cluster.library import profile_names, read_profile
from cluster.node_groups import NodeType, PodGroup, most_gpus, ray_name


def node(**settings):
    return NodeType(**{"name": "n", "instance": "some.type", "cpus": 4, **settings})


@pytest.mark.parametrize(
    ("google", "ray"),
    [
        ("nvidia-l4", "L4"),
        ("nvidia-tesla-t4", "T4"),
        ("nvidia-tesla-a100", "A100"),
        ("nvidia-a100-80gb", "A100"),
        ("nvidia-h200-141gb", "H200"),
        ("nvidia-rtx-pro-6000", "RTX-PRO-6000"),
    ],
)
def test_a_gpu_of_google_is_called_as_ray_calls_it(google, ray):
    assert ray_name(google) == ray
    assert node(gpus=1, gpu=google).labels == {"ray.io/accelerator-type": ray}


def test_a_name_that_is_given_is_taken_and_none_is_made_up():
    assert node(gpus=2, gpu="nvidia-a100-80gb", accelerator="A100-80G", gpu_gib=80).labels == {
        "ray.io/accelerator-type": "A100-80G",
        "depthsweep/gpu-gib": "80",
    }
    assert node(gpus=1).labels == node(gpu="nvidia-l4").labels == {}


@pytest.mark.parametrize(
    ("memory", "size"), [("512Mi", 1 << 29), ("22Gi", 22 << 30), ("2Ti", 1 << 41), (None, None)]
)
def test_memory_is_told_in_bytes(memory, size):
    assert node(memory=memory).memory_bytes == size


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"accelerator": "L4"}, "accelerator: L4, but no `gpus:`"),
        ({"gpu_gib": 24}, "gpu_gib: 24, but no `gpus:`"),
        ({"gpus": 1, "accelerator": "L4 24GB"}, "accelerator"),
        ({"min": 3, "max": 2}, "min: 3 is more than max: 2"),
        ({"memory": "22GB"}, "memory"),
    ],
)
def test_what_does_not_fit_together_is_refused(settings, said):
    with pytest.raises(ValidationError, match=said):
        node(**settings)
    if "memory" not in settings:
        with pytest.raises(ValidationError, match=said):
            PodGroup(name="pods", cpus=1, **{"memory": "1Gi", **settings})


def test_the_gpus_of_a_cluster_at_its_largest_are_known_where_the_profile_says():
    most = {name: read_profile(name).most_gpus for name in profile_names()}
    assert most == {"aws": 28, "gcp": 28, "kuberay": 28, "local": 0, "slurm": 16, "static": None}
    assert most_gpus([node(gpus=4, max=3), node(max=50), node(gpus=1, max=2)]) == 14


def test_gpus_of_the_head_are_nobodys():
    profile = read_profile("gcp")
    head = profile.head.model_copy(update={"gpus": 1, "gpu": "nvidia-l4"})
    rendered = autoscaler.gcp(profile.model_copy(update={"head": head}))
    assert rendered["available_node_types"]["head"]["resources"] == {"CPU": 0, "GPU": 0}
    assert profile.model_copy(update={"head": head}).most_gpus == profile.most_gpus


def test_a_node_type_that_says_no_memory_promises_none():
    profile = read_profile("aws")
    silent = profile.workers[0].model_copy(update={"memory": None, "accelerator": None})
    rendered = autoscaler.aws(profile.model_copy(update={"workers": (silent,)}))
    small = rendered["available_node_types"]["small"]
    assert small["resources"] == {"CPU": 8, "GPU": 1}
    assert small["labels"] == {"depthsweep/gpu-gib": "24"}
