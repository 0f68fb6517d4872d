"""llm-compressor's folders of the random miniature, served by vLLM."""

import json

import pytest

from fastmath_kit.errors import CheckpointError, ConfigError, DataError
from fastmath_kit.inference.engine import VLLMEngine
from fastmath_kit.inference.model_folder import load_tokenizer
from fastmath_kit.inference.protocol import Sampling
from fastmath_kit.inference.solve import sample_traces
from fastmath_kit.problems.prompts import completion_ids, prompt_ids
from fastmath_kit.training.quantize import quantize, recipe_names


@pytest.mark.slow
@pytest.mark.parametrize("recipe", recipe_names())
def test_every_recipe_is_served_by_vllm(recipe, tiny_model, tmp_path, lessons, sft_rows):
    tokenizer = load_tokenizer(tiny_model)
    texts = [
        tokenizer.decode(prompt_ids(tokenizer, row["problem"])) + row["completion"]
        for row in sft_rows[:16]
    ]
    out = quantize(tiny_model, recipe, tmp_path / recipe, calibration_texts=texts, max_tokens=64)
    config = json.loads((out / "config.json").read_text())
    num_bits = 4 if "w4" in recipe else 8
    groups = config["quantization_config"]["config_groups"].values()
    assert [group["weights"]["num_bits"] for group in groups] == [num_bits]
    for name in ("generation_config.json", "tokenizer.json", "chat_template.jinja"):
        assert (out / name).is_file() == (tiny_model / name).is_file()
    text = sft_rows[0]["completion"]
    assert completion_ids(load_tokenizer(out), text) == completion_ids(tokenizer, text)
    assert list(tmp_path.iterdir()) == [out]  # nothing temporary is left
    with VLLMEngine(out, in_process=True) as engine:
        problems = [lesson.problem for lesson in lessons[:4]]
        traces = sample_traces(problems, engine, k=2, sampling=Sampling(max_tokens=8))
    assert len(traces) == 8
    assert all(0 < trace.completion_tokens <= 8 for trace in traces)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"recipe": "gptq-w4"}, ConfigError, r"unknown quantization recipe.*Did you mean 'gptq-w4"),
        ({"calibration_texts": []}, DataError, "calibration_texts is empty"),
        ({"model": "no/model"}, CheckpointError, "no such model folder"),
        ({"out": "."}, CheckpointError, "already exists and is not overwritten"),
    ],
)
def test_bad_arguments_are_told_before_anything_is_written(
    tmp_path, monkeypatch, tiny_model, fields, error, message
):
    monkeypatch.chdir(tmp_path)
    arguments = {"model": tiny_model, "recipe": "gptq-w4a16", "out": "new/model"}
    with pytest.raises(error, match=message):
        quantize(**{**arguments, "calibration_texts": ["x"], **fields})
    assert list(tmp_path.iterdir()) == []
