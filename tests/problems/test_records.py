import polars as pl
import pytest

from fastmath_kit.errors import DataError
from fastmath_kit.problems.records import (
    Problem,
    Trace,
    read_problems,
    read_traces,
    write_problems,
    write_traces,
)

TRACES = [
    Trace(
        problem_id="424e18",  # polars would take it for a number
        sample=0,
        completion_tokens=12,
        answer=204,
        completion='<think>"a", \n\\boxed{0204}</think>',
        finish_reason="stop",
        solution="0204",
        correct=True,
        seconds=1.5,
        model="tiny",
    ),
    Trace(problem_id="007", sample=1, completion_tokens=0, answer=None),  # unknown stays None
    Trace(problem_id="7", sample=0, completion_tokens=9, answer=r"\frac{1}{2}", correct=False),
    Trace(problem_id="8", sample=0, completion_tokens=9, answer=10**39, seconds=0.0),
]


def read(tmp_path, data: bytes | str):
    path = tmp_path / "problems.csv"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return read_problems(path)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("id,problem\n1,What is $1-1$?\n", [("1", "What is $1-1$?", None)]),  # no answers
        ("id,problem,answer\n007,x,0204\n", [("007", "x", "0204")]),  # text stays as written
        ('id,problem\n1,"a, b\n""c"""\n', [("1", 'a, b\n"c"', None)]),  # quoted comma, line break
        (b"\xef\xbb\xbfid,problem\r\n1,x\r\n", [("1", "x", None)]),  # as Excel saves it
        ("problem,source,id\nx,web,1\n", [("1", "x", None)]),  # other order, another column
        ("id,problem,answer\n1,x,\n2,y,3\n", [("1", "x", None), ("2", "y", "3")]),  # a gap
        ("id,problem\n1,é ∑\n", [("1", "é ∑", None)]),  # not ASCII
        ("id,problem\n1,x\n\n", [("1", "x", None)]),  # blank line at the end
    ],
)
def test_read_problems(tmp_path, data, expected):
    problems = read(tmp_path, data)
    assert [(p.id, p.statement, p.solution) for p in problems] == expected


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("", "row 1: no column 'id', found []"),  # empty file
        ("id,answer\n1,2\n", "row 1: no column 'problem', found ['id', 'answer']"),  # a column
        ("id;problem\n1;x\n", "row 1: no column 'id', found ['id;problem']"),  # semicolons
        ("id,problem,id\n1,x,2\n", "row 1: the column 'id' appears twice"),  # ambiguous
        ("id,problem\n", "has a header but no rows"),  # nothing in it
        ("id,problem\n1,x\n2,\n", "row 3, column problem: is empty"),  # empty statement
        ("id,problem\n ,x\n", "row 2, column id: is empty"),  # blank id
        ("id,problem\n1,x\n2,a, b\n", "row 3: has 3 columns, the header has 2"),  # unquoted comma
        ("id,problem\n1,x\n\n2,\n", "row 4, column problem: is empty"),  # blank lines count
        ("id,problem\n1,x\n2\n", "row 3: has 1 columns, the header has 2"),  # a short row
        ("id,problem\n1,x\n2,y\n1,z\n", "row 4, column id: '1' already stands in row 2"),  # twice
        ('id,problem\n1,x\n2,"y\n3,z\n', "row 3: not CSV"),  # a quote that never closes
        (b"id,problem\n1,x\n2,\xe9\n", "line 3: not UTF-8 (byte 0xe9)"),  # Latin-1
        (b"PK\x03\x04\xff\xfe", "line 1: not UTF-8"),  # a spreadsheet, renamed
    ],
)
def test_bad_problem_files_say_where(tmp_path, data, message):
    with pytest.raises(DataError) as caught:
        read(tmp_path, data)
    assert str(caught.value).startswith(f"{tmp_path / 'problems.csv'}: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("reader", "kind"), [(read_problems, "problem"), (read_traces, "trace")])
def test_missing_files(tmp_path, reader, kind):
    with pytest.raises(DataError, match=f"gone: no such {kind} file"):
        reader(tmp_path / "gone")
    with pytest.raises(DataError, match=f"no such {kind} file"):
        reader(tmp_path)  # a folder


@pytest.mark.parametrize(
    ("solutions", "header"),
    [
        (("1", "2"), "id,problem,answer"),  # all known
        (("1", None), "id,problem"),  # an answer column must not have gaps
        ((), "id,problem,answer"),  # no problem, no gap
    ],
)
def test_write_problems_round_trip(tmp_path, solutions, header):
    statement = 'a, "b"\n$\\frac{1}{2}$ é'
    problems = [
        Problem(id=f"0{i}", statement=statement, solution=s) for i, s in enumerate(solutions)
    ]
    path = tmp_path / "new" / "problems.csv"
    write_problems(problems, path)
    assert path.read_text().splitlines()[0] == header
    if problems:
        kept = [p.statement for p in read_problems(path)]
        assert kept == [statement] * 2


@pytest.mark.parametrize("name", ["traces.parquet", "traces.csv"])
def test_traces_round_trip(tmp_path, name):
    write_traces(TRACES, tmp_path / name)
    assert read_traces(tmp_path / name) == TRACES
    write_traces([], tmp_path / name)
    assert read_traces(tmp_path / name) == []


def test_traces_with_the_required_columns_and_others(tmp_path):
    path = tmp_path / "traces.csv"
    path.write_text(
        "model,problem_id,sample,completion_tokens,answer,solution,temperature\n"
        "low,aime-00,0,786,33,033,0.6\n"
        "low,aime-00,1,530,,033,0.6\n"  # nothing boxed
    )
    first, second = read_traces(path)
    assert (first.answer, first.solution, first.model) == (33, "033", "low")
    assert (second.answer, second.correct, second.completion) == (None, None, None)


def test_traces_of_a_pandas_frame(tmp_path):
    path = tmp_path / "traces.parquet"
    frame = {"problem_id": [1, 2], "sample": [0.0, 1.0], "completion_tokens": [7, 8]}
    pl.DataFrame({**frame, "answer": [3, None], "solution": [3, 4]}).write_parquet(path)
    first, second = read_traces(path)
    assert (first.problem_id, first.sample, first.answer, first.solution) == ("1", 0, 3, "3")
    assert (second.sample, second.answer) == (1, None)


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("problem_id,sample,answer", "a,0,1", "no column 'completion_tokens', found"),
        ("problem_id,sample,completion_tokens,answer", "a,-1,5,1", "column sample: expected"),
        ("problem_id,sample,completion_tokens,answer", "a,0,many,1", "got 'many'"),
        ("problem_id,sample,completion_tokens,answer", "a,0,5.5,1", "got '5.5'"),
        ("problem_id,sample,completion_tokens,answer", "a,0,,1", "completion_tokens: is empty"),
        ("problem_id,sample,completion_tokens,answer", ",0,5,1", "problem_id: is empty"),
        ("problem_id,sample,completion_tokens,answer,correct", "a,0,5,1,yes", "true or false"),
        ("problem_id,sample,completion_tokens,answer,seconds", "a,0,5,1,1min", "a number"),
    ],
)
def test_bad_trace_rows_say_where(tmp_path, header, row, message):
    path = tmp_path / "traces.csv"
    good = "a,0,5,1" + ",0" * (header.count(",") - 3)
    path.write_text(f"{header}\n{good}\n{row}\n" if "tokens" in header else f"{header}\n{row}\n")
    with pytest.raises(DataError) as caught:
        read_traces(path)
    assert message in str(caught.value)
    assert "no column" in message or "trace 2, column" in str(caught.value)


@pytest.mark.parametrize("name", ["traces.parquet", "traces.csv"])
def test_a_damaged_trace_file(tmp_path, name):
    (tmp_path / name).write_bytes(b'PAR1 "cut\n off' + bytes(range(256)))
    with pytest.raises(DataError, match=r"not a readable trace file|no column") as caught:
        read_traces(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_records_are_frozen():
    with pytest.raises(AttributeError):
        TRACES[0].answer = 1
