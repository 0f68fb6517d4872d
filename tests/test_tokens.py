"""One prompt and one completion have the same token ids in SFT, GRPO, evaluation and submission.

Each stage's ids are taken where the model gets them: the batches of TRL's trainers, what vLLM's
engine was given, and what `predict` launches.
"""

import random
import time
from collections import defaultdict

import polars as pl
import pytest

from fastmath_kit import tiny
from fastmath_kit.budget.policy import Rule
from fastmath_kit.inference.engine import VLLMEngine
from fastmath_kit.inference.model_folder import load_tokenizer
from fastmath_kit.inference.protocol import Engine, Sampling, Update
from fastmath_kit.inference.solve import sample_traces
from fastmath_kit.kaggle.submission import make_predict
from fastmath_kit.problems.competition import load_competition
from fastmath_kit.problems.prompts import STOP, completion_ids, prompt_ids, stop_token_id

LESSONS = list({x.problem.statement: x for x in tiny.make_lessons(12, seed=3)}.values())[:4]
PROBLEMS = [lesson.problem for lesson in LESSONS]
STATEMENTS = [problem.statement for problem in PROBLEMS]


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return load_tokenizer(tiny_model)


@pytest.fixture(scope="module")
def completions():
    rng = random.Random(0)
    return {x.problem.statement: tiny.teacher_completion(x, rng) for x in LESSONS}


@pytest.fixture(scope="module")
def expected(tokenizer):
    """Statement -> prompt ids."""
    return {statement: prompt_ids(tokenizer, statement) for statement in STATEMENTS}


@pytest.fixture(scope="module")
def grpo_trainer(tiny_model, tmp_path_factory):
    from fastmath_kit.training.grpo import build_grpo, grpo_fields
    from fastmath_kit.training.presets import load_preset

    short = {"max_completion_length": 64, "per_device_train_batch_size": 16, "num_generations": 4}
    preset = load_preset("grpo_tiny", grpo_fields(), overrides=short)
    out = tmp_path_factory.mktemp("grpo")
    return build_grpo(preset, PROBLEMS, model=tiny_model, out=out)


class RecordingEngine(Engine):
    """Keeps the prompts it is given and answers 7."""

    name = "recording"

    def __init__(self, tokenizer):
        self.tokenizer, self.prompts, self.updates = tokenizer, [], []

    def launch(self, prompt_ids, sampling):
        self.prompts.append(prompt_ids)
        request_id = str(len(self.prompts))
        text = rf"\boxed{{7}}{STOP}"
        self.updates.append(Update(request_id=request_id, text=text, finish_reason="stop"))
        return request_id

    def poll(self, timeout_s):
        updates, self.updates = self.updates, []
        return updates

    def abort(self, request_ids):
        pass

    def close(self):
        pass


def test_the_prompt_ends_where_the_completion_begins(tokenizer, expected, completions):
    """Tokenised together or apart: nothing merges across the border."""
    for statement, completion in completions.items():
        together = tokenizer.decode(expected[statement]) + completion
        apart = expected[statement] + completion_ids(tokenizer, completion)
        assert completion_ids(tokenizer, together) == apart


def test_the_submission_launches_the_same_prompt(tokenizer, expected, tmp_path):
    engine = RecordingEngine(tokenizer)
    predict, _ = make_predict(
        lambda: engine,
        competition=load_competition("aimo3"),
        policy=lambda state: Rule(num_traces=2, stop_votes=2, max_tokens=8, timeout_s=5.0),
        clock_start_s=time.monotonic(),
        deadline_s=1_000.0,
        num_problems=len(STATEMENTS),
        fallback_answer=0,
        log_path=tmp_path / "log.jsonl",
    )
    for statement in STATEMENTS:
        row = predict(pl.Series("id", ["a"]), pl.Series("problem", [statement]))
        assert row["answer"][0] == 7
    assert engine.prompts == [expected[statement] for statement in STATEMENTS for _ in range(2)]


@pytest.fixture(scope="module")
def sft_trainer(tiny_model, completions, tmp_path_factory):
    from fastmath_kit.training.presets import load_preset
    from fastmath_kit.training.sft import build_sft, sft_fields

    rows = [{"problem": problem, "completion": text} for problem, text in completions.items()]
    short = {"per_device_train_batch_size": len(rows), "max_steps": 60, "save_strategy": "no"}
    preset = load_preset("sft_tiny", sft_fields(), overrides=short)
    return build_sft(preset, rows, model=tiny_model, out=tmp_path_factory.mktemp("sft"))


@pytest.mark.slow
def test_sft_learns_the_same_prompt_and_completion(tokenizer, expected, completions, sft_trainer):
    (batch,) = sft_trainer.get_train_dataloader()  # after TRL's own preparation, collated
    seen = set()
    for ids, labels, mask in zip(
        batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True
    ):
        learned = labels[labels != -100].tolist()
        real = ids[mask.bool()].tolist()
        prompt = real[: len(real) - len(learned)]
        assert real == prompt + learned
        (statement,) = [s for s in STATEMENTS if expected[s] == prompt]
        text = completions[statement]
        assert learned == [*completion_ids(tokenizer, text), tokenizer.eos_token_id]
        assert learned[-2] == stop_token_id(tokenizer)
        seen.add(statement)
    assert seen == set(STATEMENTS)


@pytest.mark.slow
def test_grpo_samples_from_the_same_prompt_to_the_same_end(tokenizer, expected, grpo_trainer):
    batch = next(iter(grpo_trainer.get_train_dataloader()))
    out = grpo_trainer._generate_and_score_completions(batch)  # what the loss is computed on
    assert len(batch) == len(out["prompt_ids"]) == 16
    for row, ids, mask in zip(batch, out["prompt_ids"], out["prompt_mask"], strict=True):
        assert ids[mask.bool()].tolist() == expected[row["prompt"][-1]["content"]]
    ends = {stop_token_id(tokenizer), tokenizer.eos_token_id}
    assert set(grpo_trainer.generation_config.eos_token_id) == ends
    lengths = set()
    for ids in out["completion_ids"].tolist():
        where = [position for position, token in enumerate(ids) if token in ends]
        padding = ids[where[0] + 1 :] if where else []
        assert set(padding) <= {tokenizer.pad_token_id}
        lengths.add(len(ids) - len(padding))
    assert len(lengths) > 1  # some did end before the limit


@pytest.mark.slow
def test_evaluation_samples_from_the_same_prompt_to_the_same_end(
    tokenizer, expected, tiny_model, grpo_trainer, monkeypatch
):
    with VLLMEngine(tiny_model, in_process=True) as engine:
        added, prompts, written = [], {}, defaultdict(list)
        launch, grow = engine._add, engine._grow

        def record_add(request_id, ids, sampling, core):
            added.append(ids)
            launch(request_id, ids, sampling, core)

        def record_grow(output, core):
            prompts[output.request_id] = output.prompt_token_ids
            written[output.request_id] += output.outputs[0].token_ids
            grow(output, core)

        monkeypatch.setattr(engine, "_add", record_add)
        monkeypatch.setattr(engine, "_grow", record_grow)
        traces = sample_traces(PROBLEMS, engine, k=8, sampling=Sampling(max_tokens=200, seed=0))
        assert engine.tokenizer.get_vocab() == tokenizer.get_vocab()

    per_trace = [expected[statement] for statement in STATEMENTS for _ in range(8)]
    assert added == per_trace
    launched = sorted(written, key=lambda name: int(name.split("-")[1]))
    assert [prompts[name] for name in launched] == per_trace  # vLLM adds nothing
    ends = set(grpo_trainer.generation_config.eos_token_id)
    endings = set()
    for trace, name in zip(traces, launched, strict=True):
        ids = written[name]
        assert len(ids) == trace.completion_tokens
        assert not ends & set(ids[:-1])
        if trace.finish_reason == "stop":
            assert ids[-1] in ends
            endings.add(ids[-1])
            assert trace.completion.endswith(STOP) == (ids[-1] == stop_token_id(tokenizer))
    assert endings == ends


@pytest.mark.slow
def test_vllm_writes_the_very_tokens_that_sft_taught(
    tokenizer, expected, completions, sft_trainer, tmp_path
):
    """A model that learned a few completions by heart says them to vLLM, token by token."""
    sft_trainer.train()
    sft_trainer.save_model(tmp_path / "learned")
    with VLLMEngine(tmp_path / "learned", in_process=True) as engine:
        greedy = Sampling(max_tokens=200, temperature=0.0)
        traces = sample_traces(PROBLEMS, engine, k=1, sampling=greedy)
    for trace, statement in zip(traces, STATEMENTS, strict=True):
        taught = completion_ids(tokenizer, completions[statement])
        assert trace.completion == completions[statement]
        assert trace.completion_tokens == len(taught)  # up to and with STOP
        assert completion_ids(tokenizer, trace.completion) == taught
        assert (trace.finish_reason, trace.correct) == ("stop", True)
