"""Rows and runs that the slow tests of training share."""

import json
import random
import socket

import pytest

from fastmath_kit import tiny


@pytest.fixture(scope="session")
def lessons():
    return tiny.make_lessons(64, seed=1)


@pytest.fixture(scope="session")
def sft_rows(lessons):
    rng = random.Random(0)
    return [
        {"problem": x.problem.statement, "completion": tiny.teacher_completion(x, rng)}
        for x in lessons
    ]


@pytest.fixture
def losses():
    """Returns a function from a run folder to (step, loss) of every logged step."""

    def read(out):
        lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        return [(line["step"], line["loss"]) for line in lines if "loss" in line]

    return read


@pytest.fixture
def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
