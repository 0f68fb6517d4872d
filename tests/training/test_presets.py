import pytest

from fastmath_kit.errors import ConfigError
from fastmath_kit.training.grpo import grpo_fields, import_reward
from fastmath_kit.training.length_encoder import length_fields
from fastmath_kit.training.presets import load_preset, parse_overrides, preset_names
from fastmath_kit.training.sft import sft_fields

FIELDS = {
    "learning_rate": "float",
    "max_steps": "int",
    "report_to": "None | str | list[str]",
    "packing": "bool",
    "max_length": "int | None",
}


@pytest.mark.slow  # TRL takes seconds to import
@pytest.mark.parametrize("name", preset_names())
def test_every_preset_parses_strictly(name):
    known = {"sft": sft_fields, "grpo": grpo_fields, "length": length_fields}[name.split("_")[0]]()
    preset = load_preset(name, known)
    assert preset
    for path in preset.get("reward_funcs", ()):
        assert callable(import_reward(path))


@pytest.mark.slow
def test_the_fields_are_trls_own():
    assert {"packing", "learning_rate", "lora_r", "dtype"} <= sft_fields().keys()
    assert {"reward_funcs", "num_generations", "beta"} <= grpo_fields().keys()
    assert "num_generations" not in sft_fields()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sft_tin", "unknown preset 'sft_tin'. Did you mean 'sft_tiny'?"),  # a typo
        ("nothing_like_it", "unknown preset 'nothing_like_it'. Known: .*sft_tiny"),
        ("missing.yaml", "missing.yaml: no such preset file. Known: .*sft_tiny"),  # a path
    ],
)
def test_an_unknown_preset_gets_the_nearest_name(name, message):
    with pytest.raises(ConfigError, match=message):
        load_preset(name, FIELDS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rat: 1.0e-5", "unknown field 'learning_rat'. Did you mean 'learning_rate'?"),
        ("learning_rate: 1e-6", "learning_rate is float, got the text '1e-6'.* write 1.0e-6"),
        ("max_steps: ten", "max_steps is int, got the text 'ten'"),
        ("max_length: many", "max_length is int | None, got the text 'many'"),
        ("report_to: no", 'report_to is .*, got False. YAML reads no .* as false: write "no"'),
        ("packing: 1", "packing is bool, got 1. Write true or false"),
        ("- learning_rate", "expected lines such as"),
        ("learning_rate: [", "p.yaml: not YAML"),
        ("1: 2", "unknown field '1'"),
    ],
)
def test_a_wrong_field_is_refused_by_name(tmp_path, text, message):
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_preset(path, FIELDS)


def test_overrides_win_and_are_checked(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text("max_steps: 5\nlearning_rate: 1.0e-3\n")
    preset = load_preset(path, FIELDS, overrides={"max_steps": 2, "packing": True})
    assert preset == {"max_steps": 2, "learning_rate": 0.001, "packing": True}
    with pytest.raises(ConfigError, match=r"unknown field 'max_step'\. Did you mean 'max_steps'\?"):
        load_preset(path, FIELDS, overrides={"max_step": 2})


def test_an_empty_preset_is_trls_defaults(tmp_path):
    (tmp_path / "p.yaml").write_text("# nothing\n")
    assert load_preset(tmp_path / "p.yaml", FIELDS) == {}


def test_overrides_are_yaml():
    pairs = ["max_steps=2", "learning_rate=1.0e-5", "packing=false", "max_length=null", "x=a=b"]
    assert parse_overrides(pairs) == {
        "max_steps": 2,
        "learning_rate": 1e-5,
        "packing": False,
        "max_length": None,
        "x": "a=b",
    }


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("max_steps", "--set takes key=value, got 'max_steps'"),
        ("=2", "--set takes key=value, got '=2'"),
        ("max_steps=[2", "the value is not YAML"),
    ],
)
def test_a_wrong_override_is_refused(pair, message):
    with pytest.raises(ConfigError, match=message):
        parse_overrides([pair])


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere.reward", "cannot import"),  # no such module
        ("accuracy_reward", "cannot import"),  # no module
        (
            "fastmath_kit.training.rewards.acuracy_reward",  # a slip
            r"Did you mean 'fastmath_kit\.training\.rewards\.accuracy_reward'",
        ),
    ],
)
def test_an_unknown_reward_is_refused(path, message):
    with pytest.raises(ConfigError, match=message):
        import_reward(path)
