import json

import pytest

from fastmath_kit.errors import CheckpointError
from fastmath_kit.inference.engine import VLLMEngine
from fastmath_kit.inference.model_folder import has_four_bit_weights, load_tokenizer


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (None, "no such model folder"),
        ({}, "no config.json"),
        ({"config.json": "{}"}, r"no \*.safetensors weights"),
        ({"config.json": "{", "model.safetensors": ""}, "config.json: not JSON"),
        ({"config.json": "[]", "model.safetensors": ""}, "expected an object"),
    ],
)
def test_a_folder_without_a_model_is_refused_in_one_line(tmp_path, files, message):
    folder = tmp_path / "model"
    if files is not None:
        folder.mkdir()
        for name, text in files.items():
            (folder / name).write_text(text)
    with pytest.raises(CheckpointError, match=message) as caught:
        VLLMEngine(folder, in_process=True)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("quantization", "expected"),
    [
        (None, False),
        ({"quant_method": "awq", "bits": 4}, True),
        ({"quant_method": "gptq", "bits": 8}, False),
        ({"config_groups": {"group_0": {"weights": {"num_bits": 4}}}}, True),  # W4A16
        ({"config_groups": {"group_0": {"weights": {"num_bits": 8}}}}, False),  # W8A8
        ({"config_groups": {"group_0": {"weights": None}}}, False),  # only a quantized cache
    ],
)
def test_four_bit_weights_are_recognised(quantization, expected):
    assert has_four_bit_weights({"quantization_config": quantization}) is expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "no tokenizer. Copy"), ("{", "its tokenizer is damaged")],  # missing, cut off
)
def test_a_folder_without_a_tokenizer_is_refused_in_one_line(tmp_path, text, message):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    if text is not None:
        (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)
