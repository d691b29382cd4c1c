"""Rendered files through all that `ray up` does before a machine is there, and through what its
autoscaler asks a cloud for: AWS's API as moto answers it, Google's as this file does."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import yaml

from cluster.library import read_profile
from cluster.render import render

TAGS = {"ray-node-name": "depthsweep", "ray-node-type": "worker", "ray-launch-config": "0"}


@pytest.fixture(autouse=True)
def _home_of_its_own(tmp_path, monkeypatch):
    """Ray leaves an ssh key there."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("x")


def resolved(profile):
    """Return the file of a profile as `ray up` begins with it: defaults, what each node type has,
    Ray's own checks, and what the cloud gives: keys, subnets, groups."""
    from ray.autoscaler._private.commands import _bootstrap_config

    config = yaml.safe_load(render(profile))
    said = {name: dict(kind["resources"]) for name, kind in config["available_node_types"].items()}
    return said, _bootstrap_config(config, no_config_cache=True)


def nodes(provider, config):
    """Ask a cloud for a node of every type."""
    for name, kind in config["available_node_types"].items():
        tags = {**TAGS, "ray-user-node-type": name}
        provider.create_node(dict(kind["node_config"]), tags, 1)


# ---------------------------------------------------------------------------------------------- AWS
@pytest.fixture
def aws(monkeypatch):
    """An account with an image and a role, and a subnet a zone, as every account begins."""
    import boto3
    from moto import mock_aws

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    from ray.autoscaler._private.aws import config, utils

    def forget():
        # Ray keeps its clients, those of another test as well.
        for cached in (utils.resource_cache, utils.client_cache, config._get_subnets_or_die):
            cached.cache_clear()

    profile = read_profile("aws")
    with mock_aws():
        forget()
        ec2 = boto3.client("ec2", region_name=profile.region)
        role = boto3.client("iam", region_name=profile.region)
        role.create_instance_profile(InstanceProfileName=profile.instance_profile)
        image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
        yield profile.model_copy(update={"ami": image}), ec2
    forget()


@pytest.mark.slow
def test_ray_up_takes_node_types_of_aws_as_they_are_written(aws):
    profile, ec2 = aws
    said, config = resolved(profile)
    types = config["available_node_types"]
    wanted = [worker.instance for worker in profile.workers]
    answer = ec2.describe_instance_types(InstanceTypes=wanted)["InstanceTypes"]
    offered = {one["InstanceType"]: one for one in answer}
    for name, kind in types.items():
        # What the file says stands; Ray adds what the instance has besides.
        assert said[name].items() <= kind["resources"].items()
    for worker in profile.workers:
        instance = offered[worker.instance]
        # What is promised of a node is there: an autoscaler would start nodes for ever otherwise.
        assert worker.cpus <= instance["VCpuInfo"]["DefaultVCpus"]
        assert worker.memory_bytes < instance["MemoryInfo"]["SizeInMiB"] * 2**20
        assert worker.gpus == sum(gpu["Count"] for gpu in instance["GpuInfo"]["Gpus"])
        assert {gpu["Name"] for gpu in instance["GpuInfo"]["Gpus"]} == {worker.accelerator}
        assert f"accelerator_type:{worker.accelerator}" in types[worker.name]["resources"]


@pytest.mark.slow
def test_aws_is_asked_for_the_machines_of_the_file(aws):
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    profile, ec2 = aws
    _, config = resolved(profile)
    nodes(AWSNodeProvider(config["provider"], config["cluster_name"]), config)
    found = {}
    for reservation in ec2.describe_instances()["Reservations"]:
        for instance in reservation["Instances"]:
            tags = {tag["Key"]: tag["Value"] for tag in instance["Tags"]}
            found[tags["ray-user-node-type"]] = instance
    for kind in (profile.head, *profile.workers):
        instance = found.pop(kind.name)
        assert instance["InstanceType"] == kind.instance
        assert instance["ImageId"] == profile.ami
        assert (instance.get("InstanceLifecycle") == "spot") is kind.spot
        assert instance["IamInstanceProfile"]["Arn"].endswith(f"/{profile.instance_profile}")
        assert instance["Placement"]["AvailabilityZone"] in profile.zones
    assert not found


# ------------------------------------------------------------------------------------------- Google
class Google:
    """Google's client, as far as Ray asks it: every request is kept, and answered by its name."""

    def __init__(self, profile):
        self.asked = []
        self._http = SimpleNamespace(credentials=None)
        account = {"email": "ray-autoscaler@x", "projectId": profile.project}
        subnet = {"selfLink": f"projects/{profile.project}/regions/{profile.region}/subnetworks/d"}
        self._answers = {
            "projects.get": {
                "projectId": profile.project,
                "lifecycleState": "ACTIVE",
                "commonInstanceMetadata": {"items": []},
                "name": profile.project,
            },
            "projects.getIamPolicy": {"bindings": []},
            "serviceAccounts.get": account,
            "subnetworks.list": {"items": [subnet]},
        }

    def __getattr__(self, name):
        return lambda **_: _Resource(self, name)

    def answer(self, what, arguments):
        self.asked.append((what, arguments))
        return self._answers.get(what, {"name": "operation", "status": "DONE"})


class _Resource:
    def __init__(self, google, name):
        self._google, self._name = google, name

    def __getattr__(self, name):
        def method(**arguments):
            if name == "serviceAccounts":
                return _Resource(self._google, name)
            told = SimpleNamespace(arguments=arguments)
            told.execute = lambda **_: self._google.answer(f"{self._name}.{name}", arguments)
            return told

        return method


@pytest.fixture
def google(monkeypatch):
    """What Ray's provider imports of Google's packages, which are no dependency of this one."""
    profile = read_profile("gcp")
    client = Google(profile)
    modules = {
        "google_auth_httplib2": {"AuthorizedHttp": lambda *_, **__: None},
        "httplib2": {"Http": lambda: None},
        "google.oauth2.service_account": {},
        "google.oauth2.credentials": {"Credentials": None},
        "google.oauth2": {},
        "googleapiclient": {},
        "googleapiclient.discovery": {"build": lambda *_, **__: client, "Resource": object},
        "googleapiclient.errors": {"HttpError": type("HttpError", (Exception,), {})},
    }
    made = {}
    for name, content in modules.items():
        made[name] = ModuleType(name)
        vars(made[name]).update(content)
        monkeypatch.setitem(sys.modules, name, made[name])
    made["googleapiclient"].discovery = made["googleapiclient.discovery"]
    made["googleapiclient"].errors = made["googleapiclient.errors"]
    made["google.oauth2"].service_account = made["google.oauth2.service_account"]
    made["google.oauth2"].credentials = made["google.oauth2.credentials"]
    for name in list(sys.modules):
        if name.startswith("ray.autoscaler._private.gcp"):
            monkeypatch.delitem(sys.modules, name)
    yield profile, client
    for name in list(sys.modules):
        if name.startswith("ray.autoscaler._private.gcp"):
            del sys.modules[name]


def test_ray_up_takes_node_types_of_google_as_they_are_written(google):
    profile, _ = google
    said, config = resolved(profile)
    # Google's machines are not looked up: what the file says is all that Ray will ever know.
    assert {
        name: kind["resources"] for name, kind in config["available_node_types"].items()
    } == said
    for worker in profile.workers:
        assert said[worker.name]["GPU"] == worker.gpus
        assert said[worker.name]["memory"] == worker.memory_bytes


def test_google_is_asked_for_the_machines_of_the_file(google):
    from ray.autoscaler._private.gcp.node_provider import GCPNodeProvider

    profile, client = google
    _, config = resolved(profile)
    nodes(GCPNodeProvider(config["provider"], config["cluster_name"]), config)
    found = {
        told["body"]["labels"]["ray-user-node-type"]: told["body"]
        for what, told in client.asked
        if what == "instances.insert"
    }
    assert {told["zone"] for what, told in client.asked if what == "instances.insert"} == {
        profile.zone
    }
    zone = f"projects/{profile.project}/zones/{profile.zone}"
    for kind in (profile.head, *profile.workers):
        body = found.pop(kind.name)
        assert body["machineType"] == f"zones/{profile.zone}/machineTypes/{kind.instance}"
        (account,) = body["serviceAccounts"]
        assert account["email"] == profile.service_account
        spot = body.get("scheduling", {}).get("provisioningModel") == "SPOT"
        assert spot is kind.spot
        gpus = body.get("guestAccelerators", [])
        wanted = {"acceleratorType": f"{zone}/acceleratorTypes/{kind.gpu}"}
        assert gpus == ([{**wanted, "acceleratorCount": kind.gpus}] if kind.gpus else [])
        # A machine with a GPU cannot be moved.
        assert (body.get("scheduling", {}).get("onHostMaintenance") == "TERMINATE") is bool(gpus)
    assert not found
