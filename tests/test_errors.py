import inspect
import pickle

import pytest

from fastmath_kit import errors
from fastmath_kit.errors import FastMathError, unknown_name

KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, FastMathError)
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_errors_survive_the_way_between_processes(kind):
    error = pickle.loads(pickle.dumps(kind("presets/a.yaml: wrong")))
    assert type(error) is kind
    assert str(error) == "presets/a.yaml: wrong"
    assert "__init__" not in vars(kind)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sft_tin", "Did you mean 'sft_tiny'?"),  # a typo
        ("SFT", "Known: grpo_tiny, sft_tiny."),  # nothing near: all, sorted
        ("", "Known: grpo_tiny, sft_tiny."),  # nothing given
    ],
)
def test_unknown_name_gives_the_nearest_or_all(name, expected):
    message = unknown_name("preset", name, iter(["sft_tiny", "grpo_tiny"]))
    assert message == f"unknown preset {name!r}. {expected}"


def test_a_long_list_of_names_is_cut_to_the_nearest():
    message = unknown_name("field", "lr", ["lora_r", *(f"x_{number}" for number in range(100))])
    assert message.startswith("unknown field 'lr'. Nearest: lora_r, ")
    assert len(message) < 80
