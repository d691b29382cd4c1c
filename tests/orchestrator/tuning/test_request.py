"""What a run asks Ray for, and that a trial's config says it whole."""

import json
import pickle

import pytest

from orchestrator.tuning.request import KEY, Request, pause_for, request_of, resources_of

HOLDS = {"GPU": 1.0, "CPU": 4.0, "memory": 3e9}


def request(**fields):
    return Request("0123456789ab", '{"a": 1}', "s3://b/x", **{"holds": HOLDS, **fields})


def asked(**fields):
    """Return what Ray is told: the bundles, and everything else by name."""
    said = resources_of(request(**fields).config({}))
    named = {k: v for k, v in said._bound.arguments.items() if k not in ("bundles", "strategy")}
    return said.bundles, said.strategy, {**named, **named.pop("kwargs", {})}


def told(**fields):
    return asked(**fields)[2]


@pytest.mark.parametrize(
    ("holds", "bundle"),
    [
        (HOLDS, HOLDS),
        ({"CPU": 1.0}, {"CPU": 1.0}),
        ({"GPU": 0.25, "CPU": 1.0, "memory": 0.0}, {"GPU": 0.25, "CPU": 1.0}),
    ],
)
def test_a_run_of_one_process_asks_for_what_it_holds_and_no_nothing(holds, bundle):
    assert asked(holds=holds)[:2] == ([bundle], "STRICT_PACK")


def test_a_gang_has_a_bundle_a_rank_on_one_node_unless_none_is_large_enough():
    assert asked(ranks=3)[:2] == ([HOLDS] * 3, "STRICT_PACK")
    assert asked(ranks=3, spread=True)[:2] == ([HOLDS] * 3, "PACK")


def test_the_node_that_the_policy_expects_is_a_hint_of_one_on_one_node():
    assert told(target="n1")["_soft_target_node_id"] == "n1"
    assert "_soft_target_node_id" not in told(target="n1", ranks=2, spread=True)
    assert "_soft_target_node_id" not in told()


@pytest.mark.parametrize("spread", [False, True])
def test_no_rank_goes_to_a_barred_node(spread):
    selectors = told(barred=("n1", "n2"), ranks=2, spread=spread)["bundle_label_selector"]
    assert selectors == [{"ray.io/node-id": "!in(n1,n2)"}] * 2
    assert "bundle_label_selector" not in told()


def test_a_group_has_the_name_of_its_try():
    assert told(group="depthsweep-1f-r-2")["name"] == "depthsweep-1f-r-2"
    assert "name" not in told()


@pytest.mark.parametrize("why", [{"given_up": "lost"}, {"steps_back": True}])
def test_one_that_is_not_to_start_asks_for_next_to_nothing_whatever_it_held(why):
    bundles, _, named = asked(**why, ranks=4, barred=("n1",), group="g")
    assert (bundles, named) == ([{"memory": 1.0}], {})


def test_a_config_is_flat_and_of_plain_text_and_numbers():
    config = request(details={"deep": {"er": [1, 2]}}, barred=("n",)).config(
        {"model": "m", "seed": 3, "learning_rate": 1e-3}
    )
    assert all(isinstance(value, (str, int, float)) for value in config.values())
    assert json.loads(json.dumps(config)) == pickle.loads(pickle.dumps(config)) == config
    assert (config["run_id"], config["model"], config["seed"]) == ("0123456789ab", "m", 3)


def test_a_setting_cannot_take_the_place_of_the_request():
    asked = request()
    assert request_of(asked.config({KEY: "mine"})) == asked


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"ranks": 4, "spread": True, "fresh": True, "threads": 6, "store_id": "f00"},
        {"barred": ("b", "c"), "target": "a", "group": "g", "given_up": "why"},
        {"body": "m:f", "details": {"seconds": 1.5, "names": ["x"], "no": None}},
    ],
)
def test_a_config_gives_the_request_back(fields):
    asked = request(**fields)
    through_tune = json.loads(json.dumps(asked.config({"seed": 1})))
    assert request_of(through_tune) == asked
    assert request_of(through_tune).job == asked.job


def test_a_try_says_where_and_leaves_the_rest():
    asked = request(ranks=2)
    tried = asked.at("n3", {"n2", "n1"}, "g-1")
    assert (tried.target, tried.barred, tried.group) == ("n3", ("n1", "n2"), "g-1")
    assert tried.at(None, (), "") == asked


@pytest.mark.parametrize(
    ("runs", "seconds"),
    [(1, 1.0), (200, 1.0), (400, 2.0), (1999, 9.995), (2000, 10.0), (9000, 10.0)],
)
def test_many_runs_report_less_often_so_that_all_together_are_200_a_second(runs, seconds):
    assert pause_for(runs) == seconds
