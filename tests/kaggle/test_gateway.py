import logging
import socket
import sys
import threading
from functools import partial

import grpc
import polars as pl
import pytest

from fastmath_kit.errors import ConfigError, DataError, EngineError
from fastmath_kit.kaggle import checks
from fastmath_kit.kaggle.gateway import PORTS, Gateway, InferenceServer, inference_server
from fastmath_kit.kaggle.wire import SEND, from_payload, messages, to_payload
from fastmath_kit.problems.competition import Competition, load_competition

AIMO3 = load_competition("aimo3")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def row(id_, answer=7):
    return pl.DataFrame({"id": [str(id_[0])], "answer": [answer]})


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_csv(folder, text="id,problem\na1,one\nb2,two\nc3,three\n"):
    (folder / "test.csv").write_text(text)
    return folder / "test.csv"


def run(predict, path, *, competition=AIMO3, seed=0):
    port = free_port()
    server = InferenceServer(predict, competition=competition, seed=seed, ports=(port,))
    try:
        server.run_local_gateway((path,))
    finally:
        assert is_free(port)  # closed, whatever happened


def test_a_run_serves_every_problem_once_and_writes_the_file_in_served_order(folder):
    served = []

    def predict(id_, problem):
        served.append((id_, problem, threading.current_thread()))
        return row(id_)

    run(predict, write_csv(folder))
    submission = pl.read_parquet("submission.parquet")
    assert submission.schema == {"id": pl.String, "answer": pl.Int64}
    assert submission["id"].to_list() == [id_[0] for id_, _, _ in served]
    assert sorted(submission["id"]) == ["a1", "b2", "c3"]
    assert all(isinstance(problem, pl.Series) and len(problem) == 1 for _, problem, _ in served)
    assert len({thread for _, _, thread in served}) == 1  # one worker
    assert served[0][2] is not threading.main_thread()


def test_the_order_follows_the_seed(folder):
    path = write_csv(folder, "id,problem\n" + "".join(f"p{n},x\n" for n in range(20)))
    orders = []
    for seed in (1, 1, 2):
        run(make_answering(), path, seed=seed)
        orders.append(pl.read_parquet("submission.parquet")["id"].to_list())
    assert orders[0] == orders[1] != orders[2]


def make_answering():
    def predict(id_, problem, answer=None):
        return row(id_)

    return predict


def test_an_answer_column_becomes_a_third_argument(folder):
    golds = []

    def predict(id_, problem, answer):
        golds.append(answer[0])
        return row(id_)

    run(predict, write_csv(folder, "id,problem,answer\na,x,5\nb,y,6\n"))
    assert sorted(golds) == [5, 6]


def test_all_digit_ids_arrive_as_numbers_and_stay_text_in_the_file(folder):
    kinds = []

    def predict(id_, problem):
        kinds.append(id_.dtype)
        return row(id_)

    run(predict, write_csv(folder, "id,problem\n007,x\n\n12,y\n"))  # a blank line is no problem
    assert kinds == [pl.Int64, pl.Int64]
    assert sorted(pl.read_parquet("submission.parquet")["id"]) == ["007", "12"]


@pytest.mark.parametrize(
    ("value", "message", "num_calls"),
    [
        (ZeroDivisionError("boom"), "predict failed .*boom", 1),  # an exception
        (None, "returned NoneType", 1),
        ({"answer": 7}, "returned dict", 1),
        ((7,), "returned tuple", 1),
        (pl.DataFrame({"id": ["a", "b"], "answer": [1, 2]}), "returned 2 rows", 1),
        (2**63, "predict failed", 1),  # beyond int64
        (object(), "cannot travel", 1),
        (7, "every problem was answered, but builtins.int cannot", 3),  # late, from here on
        ("7", "builtins.str cannot", 3),
        (pl.Series("answer", [7]), "polars.Series cannot", 3),
    ],
)
def test_returns_that_kaggle_refuses_fail_at_the_same_moment(folder, value, message, num_calls):
    calls = []

    def predict(id_, problem):
        calls.append(id_[0])
        if isinstance(value, Exception):
            raise value
        return value

    with pytest.raises(EngineError, match=message):
        run(predict, write_csv(folder))
    assert len(calls) == num_calls
    assert not (folder / "submission.parquet").exists()


def test_pandas_rows_pass_but_not_mixed_with_polars(folder):
    pandas = pytest.importorskip("pandas")

    def as_pandas(id_):
        return pandas.DataFrame({"id": [id_[0]], "answer": [7]})

    def predict(id_, problem):
        return as_pandas(id_)

    run(predict, write_csv(folder))
    assert pl.read_parquet("submission.parquet")["answer"].to_list() == [7, 7, 7]

    def predict(id_, problem):
        return as_pandas(id_) if id_[0] == "a1" else row(id_)

    with pytest.raises(EngineError, match=r"pandas\.DataFrame and polars\.DataFrame cannot"):
        run(predict, write_csv(folder))


@pytest.mark.parametrize(
    ("odd", "dtype"),
    [
        ("7", pl.String),  # one text turns the whole column to text
        (7.0, pl.Float64),
        (None, pl.Int64),
    ],
)
def test_returns_that_kaggle_takes_in_silence_are_logged(folder, caplog, odd, dtype):
    def predict(id_, problem):
        return row(id_, odd if id_[0] == "a1" else 7)

    with caplog.at_level(logging.WARNING):
        run(predict, write_csv(folder))
    assert pl.read_parquet("submission.parquet").schema["answer"] == dtype
    assert ("not Int64" in caplog.text) == (dtype != pl.Int64)


def test_only_calls_after_the_first_have_a_limit(folder):
    competition = Competition(name="x", slug="x", server="x.y.Z", call_limit_s=0.3)
    calls, release = [], threading.Event()

    def predict(id_, problem):
        calls.append(id_)
        release.wait(0.5 if len(calls) == 1 else 5)
        return row(id_)

    with pytest.raises(EngineError, match=r"took longer than 0.3 s"):
        run(predict, write_csv(folder), competition=competition)
    release.set()
    assert len(calls) == 2


def occupy():
    listener = socket.create_server(("127.0.0.1", 0))
    return listener, listener.getsockname()[1]


def test_an_occupied_port_moves_on_to_the_next(folder):
    listener, taken = occupy()
    with listener:
        server = InferenceServer(make_answering(), competition=AIMO3, ports=(taken, free_port()))
        server.run_local_gateway((write_csv(folder),))
    assert (folder / "submission.parquet").exists()


def test_no_free_port_is_one_clear_line(folder):
    listener, taken = occupy()
    with listener, pytest.raises(EngineError, match=f"occupied: {taken}. End the other"):
        server = InferenceServer(make_answering(), competition=AIMO3, ports=(taken,))
        server.run_local_gateway((write_csv(folder),))


def test_ports_are_kaggles():
    assert PORTS[:3] == (50051, 60053, 60054)
    assert PORTS[-1] == 60062


def test_serve_answers_another_process_until_stopped(folder):
    dead, port = free_port(), free_port()
    server = InferenceServer(make_answering(), competition=AIMO3, ports=(port,))
    serving = threading.Thread(target=server.serve)
    serving.start()
    Gateway(write_csv(folder), competition=AIMO3, ports=(dead, port)).run()  # knocks at each
    server.stop()
    serving.join(5)
    assert not serving.is_alive()
    assert is_free(port)
    assert pl.read_parquet("submission.parquet").height == 3


def test_a_gateway_gives_up_when_no_server_starts(folder):
    competition = Competition(name="x", slug="x", server="x.y.Z", startup_limit_s=0.2)
    gateway = Gateway(write_csv(folder), competition=competition, ports=(free_port(),))
    with pytest.raises(EngineError, match="no inference server answered"):
        gateway.run()


def test_an_unknown_call_is_refused(folder):
    pb, port = messages(), free_port()  # two threads that ask first get different classes
    server = InferenceServer(make_answering(), competition=AIMO3, ports=(port,))
    threading.Thread(target=server.serve, daemon=True).start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        send = channel.unary_unary(SEND, pb.Request.SerializeToString, pb.Response.FromString)
        with pytest.raises(grpc.RpcError, match="no listener is registered for 'train'"):
            send(pb.Request(name="train"), wait_for_ready=True, timeout=30)
        by_name = {"id_": to_payload(pl.Series(["k"])), "problem": to_payload("x")}
        response = send(pb.Request(name="predict", kwargs=by_name), timeout=30)
        assert from_payload(response.payload)["id"].to_list() == ["k"]
    server.stop()


class Answering:
    def predict(self, id_, problem): ...

    def __call__(self, id_, problem): ...


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (Answering().predict, "plain function, got method"),
        (Answering(), "plain function, got Answering"),
        (partial(row), "plain function, got partial"),
        (lambda id_, problem: row(id_), "must be named 'predict', got '<lambda>'"),
        (row, "must be named 'predict', got 'row'"),
    ],
)
def test_kaggle_takes_plain_functions_named_predict_only(function, message):
    with pytest.raises(ConfigError, match=message):
        checks.check_predict(function)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such problem file"),
        ("id,question\na,b\n", "no column 'problem'"),
        ("id,problem\na,\n", "row 2, column problem"),
    ],
)
def test_a_bad_problem_file_is_named_before_anything_is_sent(folder, text, message):
    path = folder / "missing.csv" if text is None else write_csv(folder, text)
    with pytest.raises(DataError, match=message):
        run(make_answering(), path)


def test_a_failed_run_leaves_an_older_submission_alone(folder):
    (folder / "submission.parquet").write_bytes(b"older")

    def predict(id_, problem):
        raise RuntimeError("boom")

    with pytest.raises(EngineError):
        run(predict, write_csv(folder))
    assert (folder / "submission.parquet").read_bytes() == b"older"
    assert sorted(path.name for path in folder.iterdir()) == ["submission.parquet", "test.csv"]


def test_kaggles_class_is_used_where_it_is_mounted(tmp_path, monkeypatch):
    competition = Competition(name="mine", slug="my-comp", server="mounted_eval.my_server.MyServer")
    ours = inference_server(competition, root=tmp_path)
    assert isinstance(ours(make_answering()), InferenceServer)

    package = tmp_path / "competitions" / "my-comp" / "mounted_eval"
    package.mkdir(parents=True)
    (package / "my_server.py").write_text("class MyServer:\n    pass\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert inference_server(competition, root=tmp_path).__module__ == "mounted_eval.my_server"

    broken = Competition(name="mine", slug="my-comp", server="mounted_eval.my_server.Other")
    with pytest.raises(EngineError, match=r"mounted_eval.my_server.Other cannot be imported"):
        inference_server(broken, root=tmp_path)
    for name in [name for name in sys.modules if name.startswith("mounted_eval")]:
        del sys.modules[name]
