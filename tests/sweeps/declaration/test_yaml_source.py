from pathlib import Path

import jsonschema
import pytest
import yaml

from sweeps.declaration.entries.sweep_spec import SweepSpec, json_schema
from sweeps.declaration.expand import read_sweep
from sweeps.declaration.yaml_source import YamlSource
from sweeps.errors import UserError

DEMO = Path("sweeps/library/demo.yaml").read_text(encoding="utf-8")


def line_of(text: str, part: str) -> int:
    return text[: text.index(part)].count("\n") + 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("batch_size: 16", "bach_size: 16", "unknown key 'bach_size' .* mean 'batch_size'"),
        ("blocks:", "block:", "unknown key 'block' .* mean 'blocks'"),
        ("model: [minilm]", "model: [minlm]", "unknown model 'minlm'; did you mean 'minilm'"),
        ("objective: [contrastive]", "objective: [contrast]", "unknown objective 'contrast'"),
        ("every: 20", "metrics: [cka]", "unknown metric 'cka'; a file that has it is listed"),
        ("steps: 60", "steps: sixty", "valid integer; found 'sixty'"),
        ("steps: 60", "steps: '60'", "valid integer; found '60'"),
        ("every: 20", "rows: 1", "rows: .* greater than or equal to 4; found 1"),
        ("{standin: gpt2}", "{standin: gpt3}", "unknown value 'gpt3'; did you mean 'gpt2'"),
        ("{standin: gpt2}", "{standin: gpt2, hub: a/b}", "exactly one of hub, folder"),
        ("{standin: gpt2}", "{standin: gpt2, revision: abc}", "revision does nothing with standin"),
        ("{standin: gpt2}", "{hub: org/x, pretraining: clm}", "40 hex digits"),
        ("{standin: gpt2}", "{hub: org/x}", "say how it was pretrained"),
        ("{standin: gpt2}", "{standin: gpt2, width: 7}", "multiple of 16"),
        ("{builtin: python-pairs}", "{builtin: python-pair}", "did you mean 'python-pairs'"),
        ("{builtin: python-pairs}", "{builtin: python-docs}", "no column 'anchor'"),
        ("{builtin: python-pairs}", "{file: none.jsonl}", "no such file"),
        ("{builtin: python-pairs}", "{file: sweep.yaml}", "one of .txt, .jsonl, .ndjson, .json"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_remedy(tmp_path, old, new, message):
    text = DEMO.replace(old, new)
    path = tmp_path / "sweep.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message) as refused:
        read_sweep(path)
    said = str(refused.value)
    assert said.startswith(f"{path}:{line_of(text, new)}:")
    assert "\n" not in said


@pytest.mark.parametrize(
    ("controls", "message"),
    [
        ("[equal_stp]", "unknown control 'equal_stp'; did you mean 'equal_step'"),
        ("[{equal_step: {targt: mean}}]", "unknown key 'targt' .* mean 'target'"),
        ("[{equal_step: {target: men}}]", "unknown value 'men'; did you mean 'mean'"),
        ("[{layer_clip: {max_norm: .inf}}]", "finite number"),
        ("[layer_clip]", "max_norm is required"),
        ("[{layer_clip: 1.0}]", "the options of layer_clip are a mapping"),
        ("[{layer_clip: {max_norm: 1}, equal_step: {}}]", "one name with its options"),
    ],
)
def test_a_mistaken_control_is_named(controls, message):
    text = DEMO.replace("control: [standard, equal_step]", f"control: {controls}")
    with pytest.raises(UserError, match=message):
        YamlSource.parse(text, "x.yaml").validate(SweepSpec)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1,\nb: 2", "malformed YAML"),
        ("", "is empty"),
        ("hello", "expected a mapping"),
        ("name: a\nname: b\n", "x.yaml:2: the key 'name' stands here twice"),
        ("a: !!python/object/apply:os.system ['true']", "python/object"),
    ],
)
def test_text_that_is_no_sweep_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        YamlSource.parse(text, "x.yaml").validate(SweepSpec)


# Ten lines that are ten thousand million values written out.
LAUGHS = "a0: &a0 [x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: x\na: &a [*a]", "x.yaml:2: what begins here holds an alias"),
        ("name: &n {deep: [{again: *n}]}", "x.yaml:1: what begins here holds an alias"),
        ("name: x\na: " + "[" * 20_000, "x.yaml:2: .* more than 64 deep"),
        ("a:\n" + "".join(f"{' ' * i}- \n" for i in range(3000)), "x.yaml:6[0-9]: .* 64 deep"),
        (f"a: {'[' * 100}{']' * 100}", "x.yaml:1: .* more than 64 deep"),
        (f"a: &a {'[' * 40}{']' * 40}\nb: {'[' * 30}*a{']' * 30}", "x.yaml:2: .* 64 deep"),
        (LAUGHS, "x.yaml:7: .* more than 1,000,000 values"),
    ],
    ids=[
        *("cycle", "cycle below", "brackets", "block", "read and too deep", "deep by an alias"),
        "aliases of aliases",
    ],
)
def test_what_has_no_end_is_named_and_not_read(text, said):
    with pytest.raises(UserError, match=said) as refused:
        YamlSource.parse(text, "x.yaml").value()
    assert "\n" not in str(refused.value)


def test_what_is_said_twice_by_an_alias_is_read_twice():
    value = YamlSource.parse("a: &a {x: [1]}\nb: [*a, *a]", "x.yaml").value()
    assert value == {"a": {"x": [1]}, "b": [{"x": [1]}, {"x": [1]}]}


def test_numbers_in_scientific_notation_are_numbers():
    assert YamlSource.parse("a: 1e-4\nb: 5E3\nc: .5\nd: 1.5e+3\ne: 3", "x").value() == {
        "a": 1e-4,
        "b": 5000.0,
        "c": 0.5,
        "d": 1500.0,
        "e": 3,
    }


def test_the_json_schema_accepts_the_library_and_refuses_a_typo():
    schema = json_schema()
    for name in ("demo", "paper"):
        text = Path(f"sweeps/library/{name}.yaml").read_text(encoding="utf-8")
        jsonschema.validate(YamlSource.parse(text, name).value(), schema)
    document = yaml.safe_load(DEMO)
    document["defaults"]["bach_size"] = 3
    with pytest.raises(jsonschema.ValidationError, match="bach_size"):
        jsonschema.validate(document, schema)
