import threading
import time

import pytest

from fastmath_kit.errors import EngineError
from fastmath_kit.inference.outbox import Outbox
from fastmath_kit.inference.protocol import Update


@pytest.fixture
def outbox():
    outbox = Outbox()
    for name in "abc":
        outbox.open(name)
    return outbox


def test_pieces_are_joined_and_told_once(outbox):
    outbox.add("b", "4", 1)
    outbox.add("a", "1", 1)
    outbox.add("b", "2", 2)
    assert outbox.take() == [
        Update(request_id="a", text="1", completion_tokens=1),
        Update(request_id="b", text="42", completion_tokens=3),
    ]
    assert outbox.take() == []
    outbox.add("b", "!", 1)
    assert outbox.take() == [Update(request_id="b", text="42!", completion_tokens=4)]


def test_the_ended_come_last_in_the_order_they_ended(outbox):
    outbox.add("c", "x", 1)
    outbox.finish(["b"], "stop")
    outbox.finish(["a", "unknown", "a"], "abort")
    outbox.add("a", "too late", 2)
    updates = [(update.request_id, update.finish_reason) for update in outbox.take()]
    assert updates == [("c", None), ("b", "stop"), ("a", "abort")]
    assert outbox.running(["a", "c", "unknown"]) == ["c"]


def test_only_an_end_wakes_who_waits(outbox, calm):
    def wait_in_vain():
        start_s = time.monotonic()
        assert not outbox.wait(0.1)
        assert 0.1 <= time.monotonic() - start_s < 0.3

    outbox.add("a", "x", 1)
    calm(wait_in_vain)
    start_s = time.monotonic()
    threading.Timer(0.05, outbox.finish, [["a"], "stop"]).start()
    assert outbox.wait(60.0)
    assert time.monotonic() - start_s < 30.0
    assert outbox.take() == [
        Update(request_id="a", text="x", completion_tokens=1, finish_reason="stop")
    ]


def test_weights_are_means(outbox):
    outbox.add("a", "xyz", 3)
    outbox.weigh("a", -0.5, [0.1])
    outbox.weigh("a", -1.5, [0.3, 0.2])
    outbox.weigh("unknown", -9.0, [9.0])
    (update,) = outbox.take()
    assert update.mean_logprob == pytest.approx(-0.5)
    assert update.tail_entropy == pytest.approx(0.2)
    outbox.weigh("a", -2.0, [1.0] * 2_048)  # only the last 2,048 places count
    outbox.add("a", ".", 1)
    assert outbox.take()[0].tail_entropy == pytest.approx(1.0)


def test_the_end_is_told_after_the_last_update(outbox):
    outbox.add("a", "x", 1)
    outbox.close("it died.")
    assert outbox.wait(10.0)
    assert outbox.take() == [Update(request_id="a", text="x", completion_tokens=1)]
    with pytest.raises(EngineError, match="it died"):
        outbox.take()
