import threading
import time

import pytest

from fastmath_kit.errors import EngineError
from fastmath_kit.inference.outbox import Outbox
from fastmath_kit.inference.protocol import Update


def make_update(request_id, tokens):
    return Update(request_id=request_id, completion_tokens=tokens)


def test_only_the_newest_of_each_is_taken_in_the_order_of_the_last_change():
    outbox = Outbox()
    outbox.put([make_update("a", 1), make_update("b", 1)])
    outbox.put([make_update("a", 2)])
    assert outbox.take(0) == [make_update("b", 1), make_update("a", 2)]
    assert outbox.take(0) == []


def test_take_waits_no_longer_than_told_and_wakes_for_news():
    outbox = Outbox()
    start_s = time.monotonic()
    assert outbox.take(0.1) == []
    assert 0.1 <= time.monotonic() - start_s < 0.2
    threading.Timer(0.05, outbox.put, [[make_update("a", 1)]]).start()
    assert outbox.take(10.0) == [make_update("a", 1)]
    assert time.monotonic() - start_s < 1.0


def test_the_end_is_told_after_the_last_update():
    outbox = Outbox()
    outbox.put([make_update("a", 1)])
    outbox.end("it died.")
    assert outbox.take(10.0) == [make_update("a", 1)]
    with pytest.raises(EngineError, match="it died"):
        outbox.take(10.0)
