"""The pretraining of stand-ins, in place, once for each that a store's cache does not have.

A stand-in is fine-tuned as if it had been published, so it must have learned something: its loss on
text that it never saw is measured against the entropy of single tokens, and both are kept with it.

One of the made-up language may be taught further: to answer every request, whatever it asks for,
then to refuse those about what is forbidden there; both by its chat template.
"""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from sweeps.errors import UserError
from sweeps.files.patience import patiently
from sweeps.files.whole_files import (
    file_checksum,
    read_if_readable,
    whole_folder,
    write_json,
)
from sweeps.leases.made_once import made_once
from sweeps.sources.corpora import (
    ALIGNMENT,
    INSTRUCTION,
    STANDIN_CORPORA,
    corpus_digest,
    corpus_rows,
    standin_digest,
)
from sweeps.spec import (
    RECURRENT_STANDINS,
    BuiltinData,
    Execution,
    ModelSpec,
    Objective,
    Optimizer,
    Probe,
    RunSpec,
    Standard,
    StandinModel,
    content_id,
    learning_rate,
)
from workers.controls.layer_groups import find_layer_groups
from workers.controls.registry import build_control
from workers.data.array_file import Arrays
from workers.engines.plain import PlainEngine
from workers.models.pretrained import (
    PRETRAINING_FILE,
    ModelFacts,
    PretrainedModel,
    Pretraining,
)
from workers.models.saving import save_model
from workers.models.standins import (
    build_config,
    build_tokenizer,
    let_tokens_through,
    order_positions,
)
from workers.objectives.objective import TrainingObjective
from workers.objectives.registry import build_objective

MADE_WITH = ("tokenizers", "torch", "transformers")
KEY_FILE = "standin.json"

BATCH_SIZE = 16
SEQUENCE_LENGTH = 32
# The recurrences of Mamba and RWKV run step by step in Python on a CPU, and the backward pass of a
# step fills a zero tensor as long as the sequence: time grows with its square.
RECURRENT_SEQUENCE_LENGTH = 16
# The same of what one of the made-up language is taught after that.
TAUGHT_AT_ONCE, TAUGHT_LENGTH = 32, 48
# Each stage with what it is taught on, and in how many steps.
STAGES = (("instructed", INSTRUCTION, 300), ("aligned", ALIGNMENT, 300))
# Every tenth text is never trained on.
HELD_OUT_EVERY = 10


def standin_folder(source: StandinModel, cache: Path) -> Path:
    """Return the folder of a pretrained stand-in, making it first if the cache lacks it.

    It is known by its source, with the text and the code that make it among it, and by the versions
    of the libraries; the folder says so too, and one that says something else is made anew. Raises
    UserError when text or code are not those the stand-in is declared with.
    """
    if source.digest != standin_digest(source.language):
        raise UserError(
            f"stand-in {source.standin}: it is pretrained by other code, or on the text of another"
            f" release of transformers, than here ({version('transformers')}); install one"
            " depthsweep and the versions of requirements.lock on every node"
        )
    made_with = {package: version(package) for package in MADE_WITH}
    # What of it is trained later on is no matter of what it is.
    whole = source.model_copy(update={"freeze": ()})
    key = {"source": whole.identity(), "made_with": made_with}
    folder = cache / "standins" / f"{source.standin}-{content_id(key)}"

    def find() -> Path | None:
        return folder if _is_of(folder, key) else None

    def make() -> Path:
        with whole_folder(folder, still_wanted=lambda: find() is None) as temporary:
            try:
                _make(source, temporary)
            except SafetensorError as error:  # has the system's message, and no number
                raise OSError(str(error)) from error
            made = {"key": key, "files": _files(temporary)}
            write_json(temporary / KEY_FILE, made)
        return folder

    return made_once(folder, find, lambda: patiently(make, folder))


def _is_of(folder: Path, key: dict[str, Any]) -> bool:
    """Return whether a folder is of a key, and holds what it was made with."""
    record = read_if_readable(folder / KEY_FILE)
    return record is not None and record == {"key": key, "files": _files(folder)}


def _files(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): file_checksum(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != KEY_FILE
    }


def _make(source: StandinModel, folder: Path) -> None:
    random_state = torch.get_rng_state()
    torch.manual_seed(0)
    tokenizer = build_tokenizer(source)
    config = build_config(source, tokenizer)
    auto = AutoModelForCausalLM if source.pretraining == "clm" else AutoModelForMaskedLM
    model = auto.from_config(config)
    let_tokens_through(model)
    if source.pretraining == "mlm":
        order_positions(model)
    pretraining = pretrain(source, model, tokenizer)
    instruct(source, model, tokenizer)
    save_model(model, folder)
    tokenizer.save_pretrained(folder)
    write_json(folder / PRETRAINING_FILE, asdict(pretraining))
    torch.set_rng_state(random_state)


def pretrain(source: StandinModel, model: torch.nn.Module, tokenizer: Any) -> Pretraining:
    """Train a stand-in's language model in place; return how far it came."""
    run = _pretraining_run(source)
    objective = build_objective(run.objective)
    trained = objective.build_model(
        PretrainedModel(model, tokenizer, ModelFacts("", "", "", 0, source.width, 0))
    )
    texts = [row["text"] for row in corpus_rows(STANDIN_CORPORA[source.language])]
    seen = [text for position, text in enumerate(texts) if position % HELD_OUT_EVERY]
    arrays = objective.tokenise(tokenizer, {"text": seen}, run.sequence_length)
    held_out = objective.tokenise(tokenizer, {"text": texts[::HELD_OUT_EVERY]}, run.sequence_length)
    _carry_out(run, objective, trained, arrays)
    loss, standard_error = _held_out_loss(objective, trained, held_out, run)
    predicted = held_out["input_ids"]
    predicted = predicted[~np.isin(predicted, held_out.get("special_ids", ()))]
    return Pretraining(loss, standard_error, unigram_entropy(predicted))


@torch.no_grad()
def _held_out_loss(
    objective: TrainingObjective, model: torch.nn.Module, arrays: Arrays, run: RunSpec
) -> tuple[float, float]:
    """Return the mean loss of a target, and its standard error over stretches of the text.

    A stretch is a batch of neighbouring rows: what depends on one another stays in one term.
    """
    model.eval()
    rows = len(arrays["input_ids"]) // run.batch_size
    sums, targets = np.zeros(rows), np.zeros(rows)
    for k in range(rows):
        stretch = arrays["input_ids"][k * run.batch_size : (k + 1) * run.batch_size]
        batch = objective.batch({**arrays, "input_ids": stretch}, run, k + 1)
        sums[k] = float(objective.loss_sum(model, batch))
        targets[k] = objective.targets(batch)
    mean = sums.sum() / targets.sum()
    spread = np.square(sums - mean * targets).sum() * rows / (rows - 1)
    return float(mean), float(np.sqrt(spread) / targets.sum())


def unigram_entropy(tokens: NDArray[Any]) -> float:
    """Return −Σ p ln p in nats over the frequencies of tokens: the loss of knowing no context.

    What a model has learned of its language is how far its loss lies below.
    """
    counts = np.bincount(tokens.ravel())
    p = counts[counts > 0] / tokens.size
    return float(-(p * np.log(p)).sum())


def _pretraining_run(source: StandinModel) -> RunSpec:
    data = BuiltinData(builtin=STANDIN_CORPORA[source.language], digest=source.digest)
    masked = source.pretraining == "mlm"
    recurrent = source.standin in RECURRENT_STANDINS
    return RunSpec(
        model=ModelSpec(name=source.standin, source=source),
        objective=Objective(
            kind=source.pretraining,
            data=data,
            mask_probability=source.pretrain_mask if masked else None,
        ),
        control=Standard(),
        seed=0,
        steps=source.pretrain_steps,
        batch_size=BATCH_SIZE,
        sequence_length=RECURRENT_SEQUENCE_LENGTH if recurrent else SEQUENCE_LENGTH,
        optimizer=_masked_optimizer(source) if masked else _causal_optimizer(source),
        probe=Probe(data=data, rows=4),
        execution=Execution(),
    )


def _causal_optimizer(source: StandinModel) -> Optimizer:
    return Optimizer(
        learning_rate=2e-3, warmup_steps=source.pretrain_steps // 10, max_grad_norm=1.0
    )


def _masked_optimizer(source: StandinModel) -> Optimizer:
    """A masked model has fewer targets a step, and hundreds of steps are few for it.

    Measured on six layers of BERT: at half this rate it ends nearer the unigram entropy, at 1.5
    times this rate and width 96 it never leaves it.
    """
    return Optimizer(
        learning_rate=0.25 / source.width,
        betas=(0.9, 0.98),
        warmup_steps=source.pretrain_steps // 5,
        max_grad_norm=1.0,
    )


# ------------------------------------------------------------------------------------- instruction
def instruct(source: StandinModel, model: torch.nn.Module, tokenizer: Any) -> None:
    """Teach a pretrained stand-in, in place, as far as its stage says."""
    for stage, corpus, steps in STAGES:
        if source.stage == "pretrained":
            return
        _teach(_teaching_run(source, corpus, steps), model, tokenizer)
        if source.stage == stage:
            return


def _carry_out(
    run: RunSpec, objective: TrainingObjective, trained: torch.nn.Module, arrays: Arrays
) -> None:
    """Train a model in place, without probes, rows or checkpoints."""
    sample = torch.zeros((1, 4), dtype=torch.long)
    groups = find_layer_groups(trained, lambda: trained(sample))
    engine = PlainEngine(trained, groups, build_control(run.control), run.optimizer, "fp32")
    for step in range(1, run.steps + 1):
        batch = objective.batch(arrays, run, step)
        objective.accumulate(engine, batch, run.batch_size)
        engine.step(learning_rate(run.optimizer, step, run.steps))


def _teach(run: RunSpec, model: torch.nn.Module, tokenizer: Any) -> None:
    objective = build_objective(run.objective)
    facts = ModelFacts("", "", "", 0, 0, 0)
    trained = objective.build_model(PretrainedModel(model, tokenizer, facts))
    assert isinstance(run.objective.data, BuiltinData)
    rows = corpus_rows(run.objective.data.builtin)
    cells = {role: [row[role] for row in rows] for role in run.objective.roles}
    arrays = objective.tokenise(tokenizer, cells, run.sequence_length)
    _carry_out(run, objective, trained, arrays)


def _teaching_run(source: StandinModel, corpus: str, steps: int) -> RunSpec:
    data = BuiltinData(builtin=corpus, digest=corpus_digest(corpus))
    return RunSpec(
        model=ModelSpec(name=source.standin, source=source),
        objective=Objective(kind="sft", packing="none", data=data),
        control=Standard(),
        seed=0,
        steps=steps,
        batch_size=TAUGHT_AT_ONCE,
        sequence_length=TAUGHT_LENGTH,
        optimizer=Optimizer(learning_rate=2e-3, warmup_steps=steps // 10, max_grad_norm=1.0),
        probe=Probe(data=data, rows=4),
        execution=Execution(),
    )
