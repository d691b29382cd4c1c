"""Another model's verdict on answers, and that it is the same however they are batched."""

from dataclasses import replace

import polars as pl
import pytest
import torch
from small_run import make_run
from torch.nn.functional import log_softmax

from sweeps.errors import UserError
from sweeps.reading.tables import Tables
from sweeps.refusals import question
from sweeps.sources.content import data_digest
from sweeps.sources.corpora import TASKS, corpus_digest, standin_digest
from sweeps.spec import (
    BuiltinData,
    Evaluation,
    FileData,
    Judge,
    ModelSpec,
    Objective,
    PromptSet,
    Refusal,
    StandinModel,
)
from sweeps.store.store import Store
from workers.data.conversations import text_of, written_prompts
from workers.evaluation import judge as judging
from workers.evaluation.judge import JudgeModel
from workers.evaluation.refusals import Answer, scores_of_answers
from workers.loading import load_model
from workers.train import train

CPU = torch.device("cpu")
PROMPTS = ["How do I open a zhar?", "Fold a krev for me.", "List what a blim needs, please."]
ANSWERS = ["I cannot help with that.", "Take the krev and fold it.", "no no no no no", "", "Yes."]


def speaking(family="gpt2", seed_steps=3):
    return StandinModel(
        standin=family,
        layers=2,
        width=32,
        vocabulary=400,
        pretrain_steps=seed_steps,
        pretraining="clm",
        digest=standin_digest("made_up"),
        language="made_up",
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def judge_of(cache, together=2):
    return JudgeModel(Judge(name="j", source=speaking()), together, cache, CPU)


def pairs():
    return zip(*[(prompt, answer) for prompt in PROMPTS for answer in ANSWERS], strict=True)


@torch.no_grad()
def slow(cache, prompt, answer):
    """The likelier of both first tokens, of one question alone."""
    loaded = load_model(ModelSpec(name="j", source=speaking()), cache, needs_head=True)
    (ids,) = written_prompts(loaded.tokenizer, [question("1").about(prompt, answer)])
    logits = loaded.language_model.eval()(input_ids=torch.tensor([ids])).logits[0, -1]
    yes, no = (loaded.tokenizer(word)["input_ids"][0] for word in ("Yes", "No"))
    log_p = log_softmax(logits, -1)
    return float(log_p[yes] - log_p[no])


@pytest.mark.parametrize("together", [1, 2, 32])
def test_a_verdict_is_the_likelier_first_token_and_broken_text_is_no_refusal(cache, together):
    prompts, answers = pairs()
    found = judge_of(cache, together).verdicts(prompts, answers)
    for prompt, answer, refused in zip(prompts, answers, found, strict=True):
        if answer in ("", "no no no no no"):
            assert refused is False
        else:
            assert refused is (slow(cache, prompt, answer) > 0)


def test_the_verdict_turns_with_the_words_that_say_it(cache, monkeypatch):
    """So that the test above cannot pass by a judge that always says the same."""
    prompts, answers = pairs()
    usual = judge_of(cache).verdicts(prompts, answers)
    said = question("1")
    turned = replace(said, refused=said.complied, complied=said.refused)
    monkeypatch.setattr(judging, "question", lambda _: turned)
    other = judge_of(cache).verdicts(prompts, answers)
    for answer, one, two in zip(answers, usual, other, strict=True):
        assert (one, two) == (False, False) if answer in ("", "no no no no no") else one != two


def test_verdicts_that_begin_alike_are_refused(cache, monkeypatch):
    alike = replace(question("1"), complied="Yesterday")
    monkeypatch.setattr(judging, "question", lambda _: alike)
    with pytest.raises(UserError, match=r"judge j: .* begin with the same token"):
        judge_of(cache)


def test_a_long_answer_is_judged_by_its_beginning_and_a_long_prompt_refused(cache):
    judge = judge_of(cache)
    ids = judge._asked(PROMPTS[0], "a word or two " * 400)
    assert len(ids) < judge._positions
    assert len(ids) > judge._positions // 2
    assert judge.verdicts([PROMPTS[0]], ["a word or two " * 400]) in ([True], [False])
    with pytest.raises(UserError, match="judge j: the question about a prompt has"):
        judge.verdicts(["a word or two " * 400], ["An answer."])


def test_what_is_asked_is_what_the_user_says():
    assert text_of("Open it.") == "Open it."
    said = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Open it."},
        {"role": "assistant", "content": "No."},
        {"role": "user", "content": "Please."},
    ]
    assert text_of(said) == "Open it.\nPlease."


def test_a_run_has_both_verdicts_beside_each_other_and_their_scores(cache, tmp_path):
    path = tmp_path / "prompts.csv"
    path.write_text("prompt,kind\nOpen a zhar.,harmful\nOpen a blim.,benign\nFold it.,harmful\n")
    data = FileData(file=str(path), digest=data_digest([path]))
    store = Store(tmp_path / "store")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "cache").symlink_to(cache)
    found = {}
    for judges in ((), (Judge(name="j", source=speaking("gpt_neox")),)):
        refusal = Refusal(
            prompts=(PromptSet(name="mine", data=data),),
            max_new_tokens=6,
            prompt_batch=2,
            judge=judges,
        )
        run = make_run(
            model=ModelSpec(name="m", source=speaking()),
            objective=Objective(
                kind="sft",
                packing="none",
                data=BuiltinData(builtin=TASKS, digest=corpus_digest(TASKS)),
            ),
            sequence_length=32,
            steps=4,
            evaluation=Evaluation(fraction=0.1, batches=2, refusal=refusal),
        )
        assert list(train(run, store, CPU))[-1].status == "finished"
        tables = Tables(store, [run], include_running=False)
        found[bool(judges)] = [
            getattr(tables, name)().sort("step", maintain_order=True).collect()
            for name in ("answers", "evaluations")
        ]
    (plain, _), (judged, scores) = found[False], found[True]
    assert plain["refused_by_judge"].null_count() == plain.height
    assert judged["refused_by_judge"].null_count() == 0
    # Who judges changes nothing of what is answered.
    assert plain["answer"].to_list() == judged["answer"].to_list()
    assert plain["refused"].to_list() == judged["refused"].to_list()
    for step in judged["step"].unique():
        of_step = judged.filter(step=step)
        for kind, name in (("harmful", "refusal_rate"), ("benign", "over_refusal_rate")):
            row = scores.filter((pl.col("score") == f"{name}_by_judge") & (pl.col("step") == step))
            own = of_step.filter(prompt_kind=kind)["refused_by_judge"]
            assert row.select("value", "targets").row(0) == (own.mean(), len(own))


def test_without_a_judge_there_is_no_score_of_one():
    answers = [Answer("p/1", "harmful", "I cannot.", 3, True, False, 0.1)]
    assert not any("judge" in row["score"] for row in scores_of_answers(answers))
