"""The miniature's problems are right, its split is clean and its tokenizer survives being saved."""

import random
import re

import pytest

from fastmath_kit import tiny
from fastmath_kit.problems.answers import extract_answer, same_answer
from fastmath_kit.problems.prompts import STOP, completion_ids, prompt_ids, stop_token_id

TOYS = {problem.statement for problem in tiny.TOY_PROBLEMS}
OPERATIONS = {"+": "+", "-": "-", r"\times": "*", r"\bmod": "%"}


def python_of(expression: str) -> str:
    """Returns a LaTeX expression of numbers as Python, refusing anything else."""
    for latex, operator in OPERATIONS.items():
        expression = expression.replace(latex, operator)
    assert re.fullmatch(r"[0-9+\-*%()]+", expression), expression
    return expression


def value_of(statement: str) -> int:
    """Solves a statement by itself, independently of the generator."""
    if equation := re.fullmatch(r"Solve \$(\d+)\+x=(\d+)\$ for \$x\$\.", statement):
        return int(equation[2]) - int(equation[1])
    return eval(python_of(re.fullmatch(r"What is \$(.+)\$\?", statement)[1]))


@pytest.fixture(scope="module")
def lessons():
    return tiny.make_lessons(1_000, seed=5)


def test_golds_solve_their_statements_and_grade_themselves(lessons):
    for problem in [*(lesson.problem for lesson in lessons), *tiny.TOY_PROBLEMS]:
        assert int(problem.solution) == value_of(problem.statement) >= 0
        assert same_answer(problem.solution, problem.solution)


def test_the_split_shares_no_statement_and_leaves_out_the_toys():
    train, held_out = tiny.make_split(num_train=3_000, num_held_out=200, seed=0)
    trained, held = {lesson.problem.statement for lesson in train}, {p.statement for p in held_out}
    assert (len(train), len(held_out), len(held)) == (3_000, 200, 200)
    assert trained.isdisjoint(held)
    assert TOYS.isdisjoint(trained | held)


def test_the_seed_decides_everything():
    sizes = {"num_train": 50, "num_held_out": 20}
    assert tiny.make_split(**sizes, seed=3) == tiny.make_split(**sizes, seed=3)
    assert tiny.make_split(**sizes, seed=3) != tiny.make_split(**sizes, seed=4)
    assert len({lesson.problem.id for lesson in tiny.make_lessons(50, seed=3)}) == 50


def test_the_teacher_writes_true_equations_and_boxes_the_solution(lessons):
    rng = random.Random(0)
    num_checks = 0
    for lesson in lessons:
        completion = tiny.teacher_completion(lesson, rng)
        assert completion.endswith(STOP) and completion.count(STOP) == 1
        assert extract_answer(completion) == int(lesson.problem.solution)
        equations = re.findall(r"\$(.+?)=(\d+)\$", completion)
        assert len(equations) >= len(lesson.steps)
        for left, right in equations:
            assert eval(python_of(left)) == int(right), completion
        num_checks += completion.count("Wait")
    assert num_checks > 100  # GRPO has something to shorten


@pytest.fixture(scope="module")
def tokenizers(tiny_model):
    """The tokenizer before it was saved, and as everybody loads it."""
    from transformers import AutoTokenizer

    return tiny.make_tokenizer(), AutoTokenizer.from_pretrained(tiny_model)


def test_the_tokenizer_comes_back_from_disk_with_the_same_ids(tokenizers, lessons):
    made, loaded = tokenizers
    rng = random.Random(0)
    texts = [tiny.teacher_completion(lesson, rng) for lesson in lessons[:200]]
    for text in [*texts, "  two  spaces\n\n", "π ≠ 3, <think>x</think> <|im_end|>", "0123456789"]:
        ids = completion_ids(made, text)
        assert completion_ids(loaded, text) == ids
        assert made.decode(ids) == loaded.decode(ids) == text
    for lesson in lessons[:50]:
        statement = lesson.problem.statement
        assert prompt_ids(made, statement) == prompt_ids(loaded, statement)
    assert made.eos_token_id == loaded.eos_token_id
    assert len(made) == len(loaded)


def test_digits_and_marks_are_single_tokens(tokenizers):
    for tokenizer in tokenizers:
        assert len(completion_ids(tokenizer, "0123456789")) == 10
        for mark in ("<think>", STOP, "<|im_start|>", "<|im_end|>"):
            assert len(completion_ids(tokenizer, mark)) == 1
        assert stop_token_id(tokenizer) != tokenizer.eos_token_id
        assert tokenizer.decode([stop_token_id(tokenizer)], skip_special_tokens=True) == STOP


def test_the_model_is_small_and_its_seed_decides_its_weights(tiny_model, tmp_path):
    from safetensors.torch import load_file

    weights = load_file(tiny_model / "model.safetensors")
    assert 3e5 < sum(tensor.numel() for tensor in weights.values()) < 7e5
    same = load_file(tiny.write_model(tmp_path / "same", seed=0) / "model.safetensors")
    other = load_file(tiny.write_model(tmp_path / "other", seed=1) / "model.safetensors")
    assert all(weights[name].equal(same[name]) for name in weights)
    assert not all(weights[name].equal(other[name]) for name in weights)
