import csv
import itertools
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from fastmath_kit.errors import ConfigError, DataError
from fastmath_kit.problems.grading import BadGold, Grader, Verdict
from fastmath_kit.problems.grading_guards import bare_text, refuse
from fastmath_kit.problems.grading_rules import decide_by_rules
from fastmath_kit.problems.records import Problem

TABLE = Path(__file__).with_name("graded_pairs.csv")
with TABLE.open(newline="", encoding="utf-8") as file:
    ROWS = list(csv.DictReader(file))
VERDICTS = {"true": True, "false": False, "none": None}


@pytest.fixture(scope="module")
def grader():
    with Grader() as grader:
        yield grader


@pytest.fixture(scope="module")
def graded(grader):
    """The verdict on every row of the table."""
    return grader.grade_many([(row["gold"], row["answer"]) for row in ROWS])


@pytest.mark.parametrize("index", range(len(ROWS)))
def test_graded_pairs(graded, index):
    row = ROWS[index]
    assert graded[index].correct is VERDICTS[row["verdict"]], row


def test_the_table_is_large_and_every_line_has_its_reason():
    assert len(ROWS) >= 250
    assert all(row["reason"] for row in ROWS)
    assert len({(row["gold"], row["answer"]) for row in ROWS}) == len(ROWS)


def test_order_and_repetition_do_not_change_a_verdict(grader, graded):
    pairs = [(row["gold"], row["answer"]) for row in ROWS]
    with Grader(num_workers=1, max_tasks=20) as other:
        assert other.grade_many(pairs[::-3]) == graded[::-3]
    assert grader.grade_many(pairs * 2) == graded * 2


def test_verdicts_of_the_same_pair_are_cached(grader):
    pair = (r"\sqrt{8}", r"2\sqrt{2}")
    first = grader.grade(*pair)
    grader.close()  # without workers
    assert grader.grade(*pair) == first == Verdict(True, "equal")
    assert not grader._pool.workers


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("1000", "1{,}000"),  # both exact
        (r"\frac{1}{2}", r"50\%"),  # fractions too
        ("no solution", r"\text{no solution}"),  # words
        ("3:4", "6:8"),  # ratios
        ("7", "x=5=7"),  # a contradiction
        ("x", "9^9^9^9"),  # refused
        ("7", "9" * 1_000_000),  # refused by length
    ],
)
def test_rules_and_guards_start_no_process(gold, answer):
    with Grader() as grader:
        assert grader.grade(gold, answer).reason
        assert not grader._pool.workers


def test_whole_numbers_are_accepted_as_answers(grader):
    assert grader.grade(7, "7").correct
    assert grader.grade("7", 7).correct


@pytest.mark.parametrize("value", [None, b"7", ["7"], 7.0, True])
@pytest.mark.parametrize("name", ["gold", "answer"])
def test_bad_input_names_the_row(grader, value, name):
    bad = (value, "7") if name == "gold" else ("7", value)
    with pytest.raises(DataError, match=f"row 1: the {name} must be text or a whole number"):
        grader.grade_many([("7", "7"), bad])


@pytest.mark.parametrize("value", [None, b"7", [{"content": "7"}]])
def test_bad_completions_name_the_row(grader, value):
    with pytest.raises(DataError, match="row 1: the completion must be text"):
        grader.grade_completions(["7", "7"], [r"\boxed{7}", value])


def test_grade_completions(grader):
    completions = [r"\boxed{7}</think> \boxed{8}", r"\boxed{8}", "nothing", r"\boxed{}</think>"]
    everywhere = grader.grade_completions([8] * 4, completions)
    assert [verdict.correct for verdict in everywhere] == [True, True, False, False]
    reasoning = grader.grade_completions(["7"] * 4, completions, "reasoning")
    assert [verdict.correct for verdict in reasoning] == [True, False, False, False]
    assert reasoning[1].reason == "no answer"
    unknown = grader.grade_completions([r"\frac{1}{"], ["nothing"])  # None, whatever is answered
    assert unknown[0].correct is None


def test_golds_and_completions_must_be_as_many(grader):
    with pytest.raises(DataError, match="2 golds for 1 completions"):
        grader.grade_completions(["7", "8"], [r"\boxed{7}"])


def test_check_golds_lists_what_does_not_grade_itself(grader):
    golds = ["7", r"\frac{1}{", None, r"\sqrt{2}", "5=6=7", b"7", "no solution", "9^9^9^9", ""]
    assert grader.check_golds(golds) == [
        BadGold(1, r"\frac{1}{", "gold: unbalanced braces"),
        BadGold(2, None, "not text but NoneType"),
        BadGold(4, "5=6=7", "gold: a false equation"),
        BadGold(5, b"7", "not text but bytes"),
        BadGold(7, "9^9^9^9", "gold: too large"),
        BadGold(8, "", "gold: empty"),
    ]


def test_check_golds_reads_problems(grader):
    problems = [Problem(id=str(n), statement="?", solution=s) for n, s in enumerate(["7", None])]
    assert [(bad.row, bad.gold) for bad in grader.check_golds(problems)] == [(1, None)]


def test_every_gold_of_the_table_that_grades_something_grades_itself(grader):
    golds = {row["gold"] for row in ROWS if row["verdict"] == "true"}
    assert grader.check_golds(golds) == []


def test_a_grader_can_be_pickled(grader):
    copy = pickle.loads(pickle.dumps(Grader(num_workers=1, time_limit_s=1.5)))
    assert copy._settings == {**grader._settings, "num_workers": 1, "time_limit_s": 1.5}


@pytest.mark.parametrize("name", ["num_workers", "time_limit_s", "memory_limit_bytes", "max_tasks"])
def test_settings_must_be_positive(name):
    with pytest.raises(ConfigError, match=f"{name} must be positive, got 0"):
        Grader(**{name: 0})


def test_importing_the_grader_loads_no_computer_algebra():
    code = "import sys, fastmath_kit.problems.grading; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not {"sympy", "math_verify", "antlr4", "numpy"} & set(loaded.stdout.split())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$7$", "7"),  # math mode
        (r"$\$12$", r"\$12"),  # an inner dollar sign
        (r"\boxed{7}", "7"),  # a box
        ("7.", "7"),  # full stop
        ("1, 2, ...", "1, 2, ..."),  # dots
        ("= 7", "7"),  # leading sign
        ("≤", r"\le "),  # Unicode operator
    ],
)
def test_bare_text(text, expected):
    assert bare_text(text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x^2+1", None),  # harmless
        (r"\left\{1, 2\right\}", None),  # escaped braces are balanced by nature
        ("[1, 2)", None),  # and these need not match
        (r"x^{2024}", None),  # a large exponent of a variable
        ("", "empty"),  # nothing
        ("x" * 1_025, "too long"),  # long
        ("7\x00", "control characters"),  # null byte
        ("7\ud800", "control characters"),  # half a character: JSON could not carry it
        ("(" * 20 + ")" * 20, "nested too deeply"),  # deep
        (r"\sqrt{" * 20 + "}" * 20, "nested too deeply"),  # deep
        ("{7", "unbalanced braces"),  # open
        ("7}{", "unbalanced braces"),  # closed before
        ("x&" * 50, "too large a matrix"),  # cells
        ("9^9^9^9", "too large"),  # tower without braces
        (r"x+9^{9^{9}}", "too large"),  # inside
        ("x^{99999999}", "too large"),  # exponent of a variable
        ("x+(10^9)!", "too large"),  # factorial of a group
        ("x+12!!", "too large"),  # math-verify reads (12!)!
        ("n!", None),  # symbolic
    ],
)
def test_refuse(text, reason):
    assert refuse(text) == reason


@pytest.mark.parametrize(
    ("gold", "answer", "expected"),
    [
        ("x+1", "1+x", None),  # algebra
        ("7", "x", None),  # no exact number
        ("7.0000001", "7", None),  # decimals that close: math-verify rounds
        ("7", "8", False),  # numbers
        (r"\frac12", "0.5", True),  # numbers
        ("abc", "cab", None),  # a product
        ("sin x", "x sin", None),  # a function
    ],
)
def test_decide_by_rules(gold, answer, expected):
    verdict = decide_by_rules(gold, answer)
    assert (verdict and verdict.correct) == expected if expected is not None else verdict is None


def test_rules_never_raise():
    texts = [row[column] for row in ROWS for column in ("gold", "answer")][::7]
    for gold, answer in itertools.product(texts, texts):
        decide_by_rules(bare_text(gold), bare_text(answer))
