"""The engine of remote servers against small HTTP servers on loopback, with faults, and vLLM's."""

import asyncio
import contextlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import pytest

from fastmath_kit.errors import ConfigError, DataError, EngineError
from fastmath_kit.inference import endpoint_fleet, endpoint_server
from fastmath_kit.inference.endpoint import EndpointEngine
from fastmath_kit.inference.engine import VLLMEngine
from fastmath_kit.inference.protocol import Sampling
from fastmath_kit.inference.stops import BOX_AFTER_REASONING
from fastmath_kit.problems.prompts import STOP, prompt_ids
from fastmath_kit.problems.records import Problem, read_traces

pytestmark = pytest.mark.slow  # with the start of transformers, half a minute of waiting

IDS = [5, 6, 7]
SAMPLING = Sampling(max_tokens=100)
GONE = (ConnectionError, asyncio.CancelledError)
MODELS = {"data": [{"id": "tiny", "max_model_len": 512}]}


def event(text="", finish_reason=None, tokens=None, **choice):
    """Returns one server-sent event as vLLM writes it."""
    choice |= {"index": 0, "text": text, "finish_reason": finish_reason}
    usage = {} if tokens is None else {"usage": {"completion_tokens": tokens}}
    return b"data: " + json.dumps({"choices": [choice]} | usage).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
FINE = [event("so ", tokens=2), event("7", "stop", 4, stop_reason=STOP), DONE]


def stream(*parts, pause_s=0.0):
    """Returns what writes an event stream and then closes the connection."""

    async def answer(server, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause_s)

    return answer


def status(code, content):
    content = json.dumps(content).encode() if isinstance(content, dict) else content

    async def answer(server, writer):
        # The server closes: a client that is not told may ask once more before it sees that.
        head = f"HTTP/1.1 {code} X\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + content)

    return answer


def cut(*parts):
    """Returns what writes an event stream in chunks and drops the connection in its middle."""

    async def answer(server, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for part in parts:
            writer.write(b"%x\r\n%b\r\n" % (len(part), part))
        await writer.drain()
        writer.transport.abort()

    return answer


async def silent(server, writer):
    await server.released.wait()


def endless(*parts, then=()):
    """Returns what writes events and, once it is released, others."""

    async def answer(server, writer):
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + b"".join(parts))
        await server.released.wait()
        writer.write(b"".join(then))

    return answer


class Server:
    """An HTTP server whose n-th completion request gets the n-th answer, later ones the last."""

    def __init__(self, *answers, models=MODELS):
        self.answers = itertools.chain(answers, itertools.repeat(answers[-1]))
        self.models = models
        self.bodies, self.headers = [], []
        self.num_open = self.max_open = self.num_left = 0
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        assert started.wait(5.0)
        self.url = f"http://127.0.0.1:{self.port}"

    def _run(self, started):
        self._loop.run_until_complete(self._serve(started))
        self._loop.close()

    async def _serve(self, started):
        self._stop, self.released = asyncio.Event(), asyncio.Event()
        listener = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.port = listener.sockets[0].getsockname()[1]
        started.set()
        await self._stop.wait()
        listener.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(self, reader, writer):
        with contextlib.closing(writer), contextlib.suppress(*GONE):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            headers = dict(line.split(": ", 1) for line in head.splitlines()[1:] if line)
            body = await reader.readexactly(int(headers.get("Content-Length", 0)))
            if head.startswith("GET"):
                self.headers.append(headers)
                return await status(200 if self.models else 404, self.models or {})(self, writer)
            self.bodies.append(json.loads(body))
            self.num_open += 1
            self.max_open = max(self.max_open, self.num_open)
            try:
                answer = asyncio.create_task(next(self.answers)(self, writer))
                leaving = asyncio.create_task(reader.read())  # ends when the client leaves
                await asyncio.wait({answer, leaving}, return_when=asyncio.FIRST_COMPLETED)
                self.num_left += not answer.done()
                answer.cancel()
                leaving.cancel()
                await writer.drain()
            finally:
                self.num_open -= 1

    def release(self):
        self._loop.call_soon_threadsafe(self.released.set)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(5.0)
        assert not self._thread.is_alive()


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    """Short waits, no key and no proxy."""
    monkeypatch.setattr(endpoint_fleet, "_RETRY_WAITS_S", (0.02, 0.04, 0.08))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def engine_for(tiny_model):
    """Returns what starts an engine; all are closed at once and leave no thread."""
    with contextlib.ExitStack() as engines:

        def start(*servers, **options):
            urls = [getattr(server, "url", server) for server in servers]
            engine = EndpointEngine(urls, tokenizer=tiny_model, **options)
            return engines.enter_context(engine)

        threads = threading.active_count()
        yield start
        start_s = time.monotonic()
    assert time.monotonic() - start_s < 4.5  # one that hangs takes 5 s
    until_true(lambda: threading.active_count() <= threads)


@pytest.fixture
def serve():
    with contextlib.ExitStack() as servers:
        yield lambda *answers, **options: servers.enter_context(Server(*answers, **options))


def ended(engine, num=1, limit_s=30.0):
    """Returns the last updates of `num` completions, in the order they ended."""
    found, deadline_s = [], time.monotonic() + limit_s
    while len(found) < num and time.monotonic() < deadline_s:
        found += [update for update in engine.poll(0.5) if update.finish_reason]
    assert len(found) == num
    return found


def until_true(condition, limit_s=30.0):
    deadline_s = time.monotonic() + limit_s
    while not (met := condition()) and time.monotonic() < deadline_s:
        time.sleep(0.005)
    assert met


def summary(update):
    return update.text, update.completion_tokens, update.finish_reason


def test_a_completion_is_streamed(engine_for, serve):
    engine = engine_for(server := serve(endless(FINE[0], then=FINE[1:])))
    assert engine.name == "tiny"
    request_id = engine.launch(IDS, Sampling(max_tokens=100, temperature=0.5, seed=3))
    growing = []
    until_true(lambda: growing.extend(engine.poll(0.02)) or growing)
    (growing,) = growing
    server.release()
    assert (growing.request_id, *summary(growing)) == (request_id, "so ", 2, None)
    (last,) = engine.poll(5.0)
    assert summary(last) == ("so 7" + STOP, 4, "stop")
    body = server.bodies[0]
    assert body["prompt"] == IDS and body["model"] == "tiny" and body["stop"] == [STOP]
    assert (body["max_tokens"], body["temperature"], body["seed"]) == (100, 0.5, 3)
    assert body["top_k"] == -1 and body["skip_special_tokens"] is False


@pytest.mark.parametrize(
    ("text", "said", "expected"),
    [
        ("7", {"stop_reason": STOP}, "7" + STOP),  # vLLM, by the string
        ("7", {"stop_reason": "its id"}, "7" + STOP),  # vLLM, by the token
        ("7", {"stop_reason": None}, "7"),  # vLLM, the model's end
        ("7", {"matched_stop": STOP}, "7" + STOP),  # SGLang
        ("7", {"matched_stop": 2}, "7"),  # SGLang, another end token
        ("7", {}, "7" + STOP),  # who does not say is taken to have stopped there
        ("7" + STOP, {}, "7" + STOP),  # who leaves it in the text
    ],
)
def test_what_stop_means(engine_for, serve, text, said, expected):
    engine = engine_for(server := serve(silent))
    engine.launch(IDS, SAMPLING)
    until_true(lambda: server.bodies)
    said = {
        k: server.bodies[0]["stop_token_ids"][0] if v == "its id" else v for k, v in said.items()
    }
    server.answers = itertools.repeat(stream(event(text), event("", "stop", **said), DONE))
    engine.launch(IDS, SAMPLING)
    assert ended(engine)[0].text == expected


def test_an_end_that_is_not_asked_for_is_the_models(engine_for, serve):
    engine = engine_for(server := serve(stream(event("7", "stop"), DONE)))
    engine.launch(IDS, Sampling(max_tokens=9, ends_at_stop=False))
    assert ended(engine)[0].text == "7"
    assert "stop" not in server.bodies[0]


@pytest.mark.parametrize(
    ("parts", "num_tokens"),
    [
        ([event("a b", tokens=3), event("", "length", 5)], 5),  # vLLM, with each piece
        ([event("a b"), event("", "length"), b'data: {"choices":[],"usage":{"completion_tokens":6'
          b"}}\n\n"], 6),  # OpenAI, after the end
        ([event("12"), event("34", "length")], 4),  # nobody counts: the tokenizer, a digit a token
        ([event("12"), event("", "stop", stop_reason=None)], 3),  # and the model's own end
        ([event("12"), event("", "stop")], 3),  # or STOP
    ],
)  # fmt: skip
def test_tokens_are_counted(engine_for, serve, parts, num_tokens):
    engine = engine_for(serve(stream(*parts, DONE)))
    engine.launch(IDS, SAMPLING)
    assert ended(engine)[0].completion_tokens == num_tokens


def test_weights_of_the_tokens(engine_for, serve):
    def told(*logprobs):
        likeliest = [{"token_id:1": 0.0, "token_id:2": -1.0} for _ in logprobs]
        return {"logprobs": {"token_logprobs": list(logprobs), "top_logprobs": likeliest}}

    parts = [event("a", **told(-1.0, -2.0)), event("b", "length", **told(-3.0)), DONE]
    engine = engine_for(server := serve(stream(*parts)))
    engine.launch(IDS, Sampling(max_tokens=9, weigh=True))
    (update,) = ended(engine)
    assert update.mean_logprob == pytest.approx(-6.0 / update.completion_tokens)
    assert update.tail_entropy == pytest.approx(0.3679, abs=1e-4)  # of 0 and -1 nats: 1/e
    assert server.bodies[0]["logprobs"] == 5
    engine.launch(IDS, SAMPLING)
    assert ended(engine)[0].tail_entropy is not None  # told without being asked
    assert "logprobs" not in server.bodies[1]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_events_may_be_cut_anywhere(engine_for, serve, size):
    whole = b": a comment\r\n\r\nevent: x\n" + event("né∑x").replace(b"\n", b"\r\n")
    whole = whole.replace(b"\\u2211", "∑".encode()) + event("!", "length", 3) + DONE
    parts = [whole[at : at + size] for at in range(0, len(whole), size)]
    engine = engine_for(serve(stream(*parts)))
    engine.launch(IDS, SAMPLING)
    assert summary(ended(engine)[0]) == ("né∑x!", 3, "length")


@pytest.mark.parametrize(
    "fault",
    [
        cut(event("lost ", tokens=9)),  # the connection drops
        stream(event("lost ", tokens=9)),  # the stream ends without an end
        stream(event("lost"), event("half a line", "stop")[:-9]),
        stream(b"data: garbage\n\n"),
        stream(b"data: [1]\n\n"),
        stream(b'data: {"choices": 7}\n\n'),
        stream(b'data: {"choices": [{"text": 7}]}\n\n'),
        stream(b"data: " + b"x" * 2**21),  # a huge line
        stream(*[event("x")] * 465),  # more than the tokens asked for
        stream(event("lost"), b'data: {"error": {"message": "core died", "code": 500}}\n\n', DONE),
        stream(event("lost", "abort"), DONE),  # the server shuts down
        stream(b""),
        status(503, {"detail": "not yet"}),
        status(429, {"error": {"message": "slower"}}),
        status(502, b"<html>\n"),
    ],
)
def test_faults_are_tried_again_and_count_once(engine_for, serve, fault):
    engine = engine_for(server := serve(fault, fault, stream(*FINE)))
    engine.launch(IDS, SAMPLING)
    assert summary(ended(engine)[0]) == ("so 7" + STOP, 4, "stop")
    assert len(server.bodies) == 3
    assert engine.poll(0.05) == []


def test_silence_is_tried_again(engine_for, serve):
    faults = silent, endless(event("lost "))
    engine = engine_for(server := serve(*faults, stream(*FINE)), silence_s=0.3)
    engine.launch(IDS, SAMPLING)
    assert summary(ended(engine)[0]) == ("so 7" + STOP, 4, "stop")
    assert len(server.bodies) >= 3  # more on a machine that is silent itself


def test_what_always_fails_ends_the_engine_in_one_line(engine_for, serve):
    engine = engine_for(server := serve(status(500, {"error": {"message": "no\nmemory"}})))
    engine.launch(IDS, SAMPLING)
    with pytest.raises(EngineError, match=rf"^{server.url}/v1: 500, no memory; also after waits"):
        ended(engine)
    assert len(server.bodies) == 4
    with pytest.raises(EngineError, match="no memory"):
        engine.launch(IDS, SAMPLING)


def test_a_busy_server_is_waited_for_while_it_serves_others(engine_for, serve, monkeypatch):
    """Three waits do for six refusals; a machine that pauses may use up one or two."""
    monkeypatch.setattr(endpoint_fleet, "_RETRY_WAITS_S", (0.05, 0.3, 1.0))

    async def long(server, writer):
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while len(server.bodies) < 8:
            writer.write(event("x"))
            await asyncio.sleep(0.02)
        writer.write(b"".join(FINE))

    server = serve(long, *[status(503, {})] * 6, stream(*FINE))
    engine = engine_for(server)
    engine.launch(IDS, SAMPLING)
    until_true(lambda: server.num_open == 1)
    engine.launch(IDS, SAMPLING)
    assert {update.finish_reason for update in ended(engine, 2)} == {"stop"}
    assert len(server.bodies) == 8


def test_a_stream_may_wait_in_the_queue_of_a_server_that_serves_others(engine_for, serve, calm):
    async def queued(server, writer):
        await asyncio.sleep(0.5)
        await stream(*FINE)(server, writer)

    def attempt():
        busy = stream(*[event("x")] * 25, *FINE, pause_s=0.02)
        engine = engine_for(server := serve(busy, queued), silence_s=0.2)
        for _ in range(2):
            engine.launch(IDS, SAMPLING)
        assert {update.completion_tokens for update in ended(engine, 2)} == {4}
        assert len(server.bodies) == 2

    calm(attempt)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (400, "400, context is 512"),
        (404, "404, context"),
        (401, r"context is 512\. Set OPENAI_API_KEY"),
    ],
)
def test_a_refusal_ends_the_engine_at_once(engine_for, serve, monkeypatch, code, message):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    error = {"error": {"message": "context\n is 512", "key": "sk-secret"}}
    engine = engine_for(server := serve(status(code, error)))
    engine.launch(IDS, SAMPLING)
    with pytest.raises(EngineError, match=message) as caught:
        ended(engine)
    assert len(server.bodies) == 1
    assert server.url in str(caught.value) and "\n" not in str(caught.value)
    assert "sk-secret" not in str(caught.value)


def test_a_server_that_refuses_extra_fields_is_asked_without(engine_for, serve):
    def refuse(*names):
        return status(400, {"error": {"message": f"Unrecognized arguments: {', '.join(names)}"}})

    refusals = [refuse("top_k", "min_p"), refuse("continuous_usage_stats")]
    engine = engine_for(server := serve(*refusals, stream(*FINE)))
    for _ in range(2):
        engine.launch(IDS, SAMPLING)
        assert ended(engine)[0].text == "so 7" + STOP
    assert len(server.bodies) == 4  # it is remembered
    assert not {"top_k", "min_p"} & server.bodies[3].keys()
    assert server.bodies[3]["stream_options"] == {"include_usage": True}

    engine = engine_for(serve(refuse("min_p")))
    engine.launch(IDS, Sampling(max_tokens=9, min_p=0.1))  # which this completion needs
    with pytest.raises(EngineError, match="Unrecognized arguments: min_p"):
        ended(engine)


def test_a_server_that_never_answers_holds_up_nobody(engine_for, serve, calm):
    engine = engine_for(server := serve(silent))
    request_id = engine.launch(IDS, SAMPLING)

    def poll_on_time():
        start_s = time.monotonic()
        assert engine.poll(0.1) == []
        assert time.monotonic() - start_s < 0.5

    calm(poll_on_time)
    until_true(lambda: server.num_open == 1)
    engine.abort([request_id, "unknown"])
    assert summary(ended(engine)[0]) == ("", 0, "abort")
    engine.abort([request_id])
    assert engine.poll(0.05) == []
    until_true(lambda: server.num_left == 1)
    engine.launch(IDS, SAMPLING)
    until_true(lambda: len(server.bodies) == 2)
    engine.close()
    until_true(lambda: server.num_left == 2)
    with pytest.raises(EngineError, match="tiny: the engine is closed"):
        engine.poll(10.0)
    engine.close()
    engine.abort([request_id])


def test_abort_and_until_close_the_stream_and_keep_what_was_written(engine_for, serve):
    box = event(f"{STOP} \\boxed{{7}}")
    engine = engine_for(server := serve(endless(event("12"), event("3")), endless(box)))
    request_id = engine.launch(IDS, SAMPLING)
    until_true(lambda: any(update.text == "123" for update in engine.poll(0.01)))
    engine.abort([request_id])
    assert summary(ended(engine)[0]) == ("123", 3, "abort")  # counted by the tokenizer
    engine.launch(IDS, Sampling(max_tokens=99, ends_at_stop=False, until=BOX_AFTER_REASONING))
    (update,) = ended(engine)
    assert (update.text, update.finish_reason) == (f"{STOP} \\boxed{{7}}", "stop")
    until_true(lambda: server.num_left == 2)


def test_an_abort_during_the_wait_keeps_what_was_written(engine_for, serve, monkeypatch):
    monkeypatch.setattr(endpoint_fleet, "_RETRY_WAITS_S", (30.0,))
    engine = engine_for(server := serve(cut(event("12", tokens=2)), silent))
    request_id = engine.launch(IDS, SAMPLING)
    until_true(lambda: any(update.text == "12" for update in engine.poll(0.02)))
    until_true(lambda: not server.num_open)
    engine.abort([request_id])
    assert summary(ended(engine)[0]) == ("12", 2, "abort")


def test_no_more_than_max_concurrent_are_open(engine_for, serve):
    engine = engine_for(server := serve(endless(then=FINE)), max_concurrent=3)
    names = [engine.launch(IDS, SAMPLING) for _ in range(12)]
    engine.abort(names[-2:])  # they still wait
    assert {update.request_id for update in ended(engine, 2)} == set(names[-2:])
    until_true(lambda: server.num_open >= 3)
    time.sleep(0.1)  # for a fourth, which must not come
    assert server.max_open == 3
    server.release()
    assert {update.request_id for update in ended(engine, 10)} == set(names[:-2])
    assert len(server.bodies) == 10


def test_a_fleet_shares_the_work(engine_for, serve):
    servers = [serve(endless(then=FINE)) for _ in range(3)]
    engine = engine_for(*servers, max_concurrent=6)
    for _ in range(12):
        engine.launch(IDS, SAMPLING)
    until_true(lambda: [server.num_open for server in servers] == [2, 2, 2])
    assert [server.max_open for server in servers] == [2, 2, 2]
    for server in servers:
        server.release()
    ended(engine, 12)


def test_a_dead_server_rests_while_others_work(engine_for, serve, monkeypatch):
    monkeypatch.setattr(endpoint_fleet, "_RETRY_WAITS_S", (30.0,))  # nobody waits
    broken, fine = serve(cut(event("lost"))), serve(stream(*FINE))
    engine = engine_for("http://127.0.0.1:9", broken, fine, max_concurrent=4)
    for _ in range(20):
        engine.launch(IDS, SAMPLING)
    assert {update.text for update in ended(engine, 20)} == {"so 7" + STOP}
    assert len(broken.bodies) <= 4 and len(fine.bodies) == 20


def test_a_server_that_comes_back_is_used_again(engine_for, serve, monkeypatch):
    monkeypatch.setattr(endpoint_server, "_FIRST_REST_S", 0.2)
    other = serve(stream(*FINE))
    late = serve(status(503, {}), stream(*FINE))
    engine = engine_for(late, other, max_concurrent=1)
    start_s = time.monotonic()
    while len(late.bodies) < 3 and time.monotonic() - start_s < 30.0:
        engine.launch(IDS, SAMPLING)
        ended(engine)
    assert len(late.bodies) == 3 and time.monotonic() - start_s > 0.2


@pytest.mark.parametrize(
    ("models", "options", "message"),
    [
        (MODELS, {"model": "base"}, "serves tiny, not 'base'"),
        ({"data": [{"id": "a"}, {"id": "b"}]}, {}, "list in common: a, b. Name one"),
        ({"data": []}, {}, "list in common: none. Name one"),
        (None, {}, "Name one"),
    ],
)
def test_another_model_than_meant_is_refused(engine_for, serve, models, options, message):
    with pytest.raises(EngineError, match=message):
        engine_for(serve(silent, models=models), **options)


def test_a_server_without_a_list_of_models_is_asked_by_name(engine_for, serve):
    engine = engine_for(server := serve(stream(*FINE), models=None), model="my-model")
    engine.launch(list(range(1, 2000)), SAMPLING)  # nobody said what fits
    assert ended(engine) and server.bodies[0]["model"] == "my-model"
    with pytest.raises(DataError, match="a prompt of 0 tokens does not fit my-model"):
        engine.launch([], SAMPLING)


def test_no_server_at_all(engine_for):
    with pytest.raises(EngineError, match=r"^http://127\.0\.0\.1:9/v1: .*Start the server"):
        engine_for("http://me:secret@127.0.0.1:9")


def test_a_prompt_must_fit_and_a_completion_is_cut_to_what_is_left(engine_for, serve):
    engine = engine_for(server := serve(stream(*FINE)))
    with pytest.raises(DataError, match="a prompt of 512 tokens does not fit tiny, which takes 1 "):
        engine.launch([1] * 512, SAMPLING)
    engine.launch([1] * 500, SAMPLING)
    ended(engine)
    assert server.bodies[0]["max_tokens"] == 12
    engine = engine_for(server, max_model_len=64)
    with pytest.raises(DataError, match="takes 1 to 63"):
        engine.launch([1] * 64, SAMPLING)


@pytest.mark.parametrize(
    ("user", "key", "expected"),
    [
        ("", None, None),
        ("", " sk-1\n", "Bearer sk-1"),
        ("me:secret@", "sk-1", "Basic bWU6c2VjcmV0"),  # the URL's own
    ],
)
def test_who_asks(engine_for, serve, monkeypatch, user, key, expected):
    if key:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    server = serve(silent)
    engine_for(server.url.replace("http://", f"http://{user}"))
    assert server.headers[0].get("Authorization") == expected


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("localhost:8000", {}, "'localhost:8000' is no URL"),
        ("ftp://me:secret@host", {}, "^'host' is no URL"),
        ("http://host:port", {}, "is no URL"),
        ("http://host", {"max_concurrent": 0}, "max_concurrent must be at least 1"),
        ("http://host", {"silence_s": 0}, "silence_s above 0"),
    ],
)
def test_impossible_values(engine_for, url, options, message):
    with pytest.raises(ConfigError, match=message) as caught:
        engine_for(url, **options)
    assert "secret" not in str(caught.value)


def test_an_impossible_key(engine_for, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-\N{SNOWMAN}")
    with pytest.raises(ConfigError, match="OPENAI_API_KEY holds characters"):
        engine_for("http://host")


def free_port():
    """Returns a port that the system gives to nobody else before the server has started."""
    while True:
        with contextlib.suppress(OSError), socket.socket() as free:
            free.bind(("127.0.0.1", port := random.randrange(20_000, 32_768)))
            return port


class RealServer:
    """vLLM's own server in a process of its own."""

    def __init__(self, model, folder):
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / f"{port}.log"
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model]
        command += ["--host", "127.0.0.1", "--port", port, "--enforce-eager", "--dtype", "float32"]
        command += ["--no-enable-chunked-prefill"]
        settings = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
        settings |= {"VLLM_NO_USAGE_STATS": "1", "PYTHONWARNINGS": "ignore"}
        self._process = subprocess.Popen(
            [str(part) for part in command],
            env=os.environ | settings,
            stdout=self.log.open("wb"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return answer.read().decode()

    def wait(self):
        deadline_s = time.monotonic() + 400
        while time.monotonic() < deadline_s:
            with contextlib.suppress(OSError):
                return self.get("/health")
            assert self._process.poll() is None, self.log.read_text()[-3000:]
            time.sleep(0.5)
        pytest.fail(f"not up in time: {self.log.read_text()[-3000:]}")

    def num_requests(self):
        """Returns the requests that it runs or has queued, and those it has finished."""
        names = r"^vllm:(num_requests_(?:running|waiting)|request_success_total){.*} (.*)$"
        found = re.findall(names, self.get("/metrics"), re.MULTILINE)
        open_ = sum(float(value) for name, value in found if name.startswith("num_requests"))
        return open_, sum(float(value) for name, value in found if name.startswith("request_succ"))

    def stop(self):
        """Ends it with all its processes."""
        for how, limit_s in ((signal.SIGTERM, 20), (signal.SIGKILL, 20)):
            with contextlib.suppress(subprocess.TimeoutExpired, ProcessLookupError):
                os.killpg(self._process.pid, how)
                self._process.wait(limit_s)


MAX_TOKENS = 4096  # of a prompt with its completion: seconds of writing, so that it can be watched


@pytest.fixture(scope="module")
def long_model(tiny_model, tmp_path_factory):
    """The miniature's random model with a longer context; no position is learned."""
    folder = shutil.copytree(tiny_model, tmp_path_factory.mktemp("long") / "model")
    config = json.loads((folder / "config.json").read_text())
    config["max_position_embeddings"] = MAX_TOKENS
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def real_server(long_model, tmp_path_factory):
    server = RealServer(long_model, tmp_path_factory.mktemp("server"))
    try:
        server.wait()
        yield server
    finally:
        server.stop()


PROBLEMS = [Problem(id=str(i), statement=f"What is ${i + 9}-{i}$?", solution="9") for i in range(6)]


def launch(engine, max_tokens, *, statement=PROBLEMS[0].statement, **fields):
    return engine.launch(
        prompt_ids(engine.tokenizer, statement), Sampling(max_tokens=max_tokens, **fields)
    )


def drawn(engine):
    """Returns the last updates of the same completions by whatever engine, in the same order."""
    statements = [problem.statement for problem in PROBLEMS[:3]]
    room = MAX_TOKENS - 22 - len(prompt_ids(engine.tokenizer, ""))
    names = [launch(engine, 60, temperature=0.0, statement="1" * room)]  # cut to what is left
    for statement in statements:
        names.append(launch(engine, 40, temperature=0.0, weigh=True, statement=statement))
    for seed in range(8):
        names.append(launch(engine, 100, seed=seed))
    names.append(launch(engine, 40, seed=1, top_p=0.9, min_p=0.01))
    names.append(launch(engine, 40, seed=2, ends_at_stop=False, until=BOX_AFTER_REASONING))
    updates = {update.request_id: update for update in ended(engine, len(names), limit_s=200)}
    return [updates[name] for name in names]


@pytest.mark.slow
def test_a_real_server_writes_what_the_local_engine_writes(real_server, long_model):
    with VLLMEngine(long_model, in_process=True, dtype="float32") as engine:
        expected = drawn(engine)
    with EndpointEngine(real_server.url, tokenizer=long_model) as engine:
        found = drawn(engine)
    assert [summary(update) for update in found] == [summary(update) for update in expected]
    assert found[0].completion_tokens == 22
    for ours, theirs in zip(found[1:4], expected[1:4], strict=True):
        assert ours.mean_logprob == pytest.approx(theirs.mean_logprob, abs=1e-3)
        assert ours.tail_entropy == pytest.approx(theirs.tail_entropy, abs=1e-3)
    ends = {(update.finish_reason, update.text.endswith(STOP)) for update in found}
    assert ends == {("stop", True), ("stop", False), ("length", False)}


@pytest.mark.slow
def test_a_real_server_aborts_and_is_never_asked_for_too_much(real_server, long_model, calm):
    """A server without a processor to itself may end the first before it has heard of the last."""

    def attempt():
        until_true(lambda: real_server.num_requests()[0] == 0)
        with EndpointEngine(real_server.url, tokenizer=long_model, max_concurrent=8) as engine:
            names = [
                launch(engine, MAX_TOKENS, temperature=0.0, ends_at_stop=False) for _ in range(8)
            ]
            until_true(
                lambda: any(update.completion_tokens > 5 for update in engine.poll(0.05)), 60
            )
            until_true(lambda: real_server.num_requests()[0] == 8)
            start_s = time.monotonic()
            engine.abort(names)
            assert {update.finish_reason for update in ended(engine, 8)} == {"abort"}
            assert time.monotonic() - start_s < 0.5
            until_true(lambda: real_server.num_requests()[0] == 0, 2.0)

            num_before = real_server.num_requests()[1]
            for seed in range(64):
                launch(engine, 100, seed=seed, ends_at_stop=False)
            num_left, most_open = 64, 0
            while num_left:
                num_left -= sum(update.finish_reason is not None for update in engine.poll(0.02))
                most_open = max(most_open, real_server.num_requests()[0])
            assert 4 <= most_open <= 8
            until_true(lambda: real_server.num_requests() == (0, num_before + 64))

    calm(attempt)


def evaluation(model, folder, *options):
    """Returns the command that evaluates a model on the six problems."""
    rows = [f"{problem.id},{problem.statement},{problem.solution}" for problem in PROBLEMS]
    (folder / "problems.csv").write_text("id,problem,answer\n" + "\n".join(rows) + "\n")
    command = [sys.executable, "-m", "fastmath_kit.cli", "evaluate", "--model", model]
    command += ["--problems", folder / "problems.csv", "--out", folder / "out", *options]
    return [str(part) for part in command]


@pytest.mark.slow
def test_evaluation_by_the_command_line_on_a_fleet(real_server, long_model, tmp_path):
    options = ["--k", 2, "--max-tokens", 30, "--max-concurrent", 4]
    for host in ("127.0.0.1", "localhost"):  # one server, twice
        url = real_server.url.replace("127.0.0.1", f"me:secret@{host}")
        options += ["--endpoint", url]
    command = evaluation(long_model, tmp_path, *options)
    num_before = real_server.num_requests()[1]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report == json.loads((tmp_path / "out/report.json").read_text())
    assert (report["k"], report["num_problems"]) == (2, 6)
    port = real_server.url.rpartition(":")[2]
    urls = [f"http://127.0.0.1:{port}/v1", f"http://localhost:{port}/v1"]
    assert report["setting"]["endpoints"] == urls and "secret" not in done.stdout + done.stderr
    traces = read_traces(tmp_path / "out/traces.parquet")
    assert len(traces) == 12 and all(trace.correct is not None for trace in traces)
    until_true(lambda: real_server.num_requests() == (0, num_before + 12))


@pytest.mark.slow
def test_an_interrupted_evaluation_goes_on_where_it_was(real_server, long_model, tmp_path):
    options = ["--k", 8, "--max-tokens", 600, "--max-concurrent", 2]
    command = evaluation(long_model, tmp_path, *options, "--endpoint", real_server.url)
    num_before = real_server.num_requests()[1]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    until_true(lambda: real_server.num_requests()[1] >= num_before + 6, 120)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130 and "Run the same command again to go on" in errors
    kept = len(read_traces(tmp_path / "out/unfinished/traces.parquet"))
    until_true(lambda: real_server.num_requests()[0] == 0)
    num_before = real_server.num_requests()[1]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 0 < kept < 48
    until_true(lambda: real_server.num_requests() == (0, num_before + 48 - kept))
    assert len(read_traces(tmp_path / "out/traces.parquet")) == 48
    assert not (tmp_path / "out/unfinished").exists()


@pytest.mark.slow
def test_a_real_server_that_is_stopped_ends_the_engine(real_server, long_model):
    """The last test of this server."""
    with EndpointEngine(real_server.url, tokenizer=long_model) as engine:
        launch(engine, MAX_TOKENS, temperature=0.0, ends_at_stop=False)
        until_true(lambda: engine.poll(0.01), 60)
        real_server.stop()
        with pytest.raises(EngineError, match=f"^{real_server.url}/v1: .*also after waits"):
            ended(engine, limit_s=60)
