"""Profiles of users: complaints have a file, a line and a remedy."""

import jsonschema
import pytest
import yaml

from cluster.library import PROFILES, profile_names, read_profile
from cluster.profile import schema
from sweeps.errors import UserError


@pytest.fixture
def edited(tmp_path):
    def write(name, old, new):
        text = (PROFILES / f"{name}.yaml").read_text(encoding="utf-8")
        assert old in text
        path = tmp_path / "mine.yaml"
        path.write_text(text.replace(old, new), encoding="utf-8")
        return str(path)

    return write


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("static", "head: 10", "heed: 10", "mine.yaml:5: unknown key 'heed' in the cluster prof"),
        ("static", "head: 10", "heed: 10", "did you mean 'head'?"),
        (
            "static",
            "kind: static",
            "kind: statik",
            "mine.yaml:3: unknown kind 'statik'; valid: aws",
        ),
        ("static", "kind: static\n", "", "`kind` is required"),
        ("aws", "max: 16", "max: 0", "greater than or equal to 1"),
        ("aws", "name: small", "name: medium", "need names of their own"),
        ("gcp", "gpu: nvidia-l4, ", "", "node type small: name its accelerator with `gpu:`"),
        ("kuberay", "memory: 28Gi", "memory: 28", "mine.yaml"),
        ("kuberay", "max: 16", "max: 16\n    pod: {volumes: []}", "say volume_claim"),
        ("kuberay", "name: small", "name: medium", "need names of their own"),
        ("slurm", 'time: "24:00:00"', 'time: "24:60:00"', "mine.yaml:7: time"),
        ("local", "nodes: 2", "nodes: 2\nport: 8265", "are both 8265"),
        ("slurm", "gpus_per_node: 8", "gpus_per_node: many", "mine.yaml:6: gpus_per_node"),
        ("slurm", "partition: gpu", "partition: 'gpu; rm -rf /'", "mine.yaml:8: partition"),
        ("local", "nodes: 2", "env: {HF_TOKEN: abc}", "HF_TOKEN looks like a secret"),
    ],
)
def test_a_mistake_in_a_profile_has_its_line(edited, name, old, new, said):
    with pytest.raises(UserError) as caught:
        read_profile(edited(name, old, new))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_complaint_about_a_secret_does_not_repeat_it(edited):
    with pytest.raises(UserError) as caught:
        read_profile(edited("local", "nodes: 2", "env: {HF_TOKEN: hf_abc}"))
    assert "hf_abc" not in str(caught.value)


def test_an_unknown_profile_is_answered_with_the_nearest():
    with pytest.raises(UserError, match="no cluster profile 'kubray'; did you mean 'kuberay'"):
        read_profile("kubray")
    with pytest.raises(UserError, match=r"none.yaml: no such file; .* a cluster profile file"):
        read_profile("none.yaml")


@pytest.mark.parametrize("name", profile_names())
def test_the_schema_accepts_every_profile_and_no_other_key(name):
    value = yaml.safe_load((PROFILES / f"{name}.yaml").read_text(encoding="utf-8"))
    jsonschema.validate(value, schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**value, "colour": "red"}, schema())
