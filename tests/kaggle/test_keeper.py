import threading
import time
from functools import partial

import pytest

from fastmath_kit.budget.throughput import Probe
from fastmath_kit.errors import CheckpointError, ConfigError, EngineError
from fastmath_kit.inference.protocol import Engine
from fastmath_kit.kaggle import keeper
from fastmath_kit.kaggle.keeper import EngineKeeper


class FakeEngine(Engine):
    """Only opens and closes."""

    def __init__(self):
        self.closed = False

    def close(self):
        self.closed = True


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A tenth of the patience or less, so that the tests take no seconds."""
    monkeypatch.setattr(keeper, "_BACK_OFF_S", (0.01, 0.02, 0.04))
    monkeypatch.setattr(keeper, "_HANGS_S", 0.5)


class Starts:
    """Builds engines or raises what stands in its list, the last one again and again."""

    def __init__(self, *outcomes, seconds=0.0):
        self.outcomes, self.seconds = outcomes, seconds
        self.times_s, self.engines = [], []

    def __call__(self):
        outcome = self.outcomes[min(len(self.times_s), len(self.outcomes) - 1)]
        self.times_s.append(time.monotonic())
        time.sleep(self.seconds)
        if outcome is not None:
            raise outcome
        self.engines.append(FakeEngine())
        return self.engines[-1]


def kept(starts, *, run_s=60.0, **options):
    engine_keeper = EngineKeeper(starts, **options)
    engine_keeper.start(time.monotonic() + run_s)
    return engine_keeper


def soon(seconds=30.0):
    return time.monotonic() + seconds


def test_it_starts_in_the_background_and_says_what_it_measured(caplog):
    probe = Probe(num_running=1, context_tokens=9.0, step_s=0.01)
    release = threading.Event()

    def start():
        release.wait(30)
        return FakeEngine()

    engine_keeper = kept(start, measure=lambda engine: [probe])
    assert engine_keeper.probes == ()  # at once
    release.set()
    assert isinstance(engine_keeper.ready(soon()), FakeEngine)
    assert engine_keeper.probes == (probe,)


def test_a_start_takes_no_longer_than_the_problem_has(caplog):
    release = threading.Event()
    engine_keeper = kept(release.wait)
    with pytest.raises(EngineError, match="has not started in the time of this problem"):
        engine_keeper.ready(soon(0.1))
    release.set()


def test_failed_starts_are_repeated_ever_more_slowly(caplog):
    starts = Starts(*[RuntimeError("no memory")] * 3, None)
    assert kept(starts).ready(soon()) is starts.engines[0]
    pauses_s = [b - a for a, b in zip(starts.times_s, starts.times_s[1:], strict=False)]
    assert all(
        pause_s >= least_s for pause_s, least_s in zip(pauses_s, (0.01, 0.02, 0.04), strict=True)
    )
    assert caplog.text.count("did not start (RuntimeError('no memory'))") == 3


def test_after_four_failures_each_problem_waits_for_one_more(monkeypatch):
    monkeypatch.setattr(keeper, "_BACK_OFF_S", (0.01, 0.01, 0.3))  # time to count before the next
    starts = Starts(*[RuntimeError("no memory")] * 5, None)
    engine_keeper = kept(starts)
    for num_starts in (4, 5):
        with pytest.raises(RuntimeError, match="no memory"):
            engine_keeper.ready(soon())
        assert len(starts.times_s) == num_starts
    assert engine_keeper.ready(soon()) is starts.engines[0]


@pytest.mark.parametrize("error", [CheckpointError("no config"), ConfigError("x"), ImportError()])
def test_what_no_other_start_can_mend_is_not_tried_again(error, caplog):
    starts = Starts(error)
    engine_keeper = kept(starts)
    for _ in range(3):
        with pytest.raises(type(error)):
            engine_keeper.ready(soon())
    assert len(starts.times_s) == 1
    assert "giving up" in caplog.text


def test_a_measurement_that_fails_is_a_failed_start_and_its_engine_is_closed():
    starts = Starts(None)
    failures = iter([EngineError("died")])

    def measure(engine):
        for error in failures:
            raise error
        return []

    engine = kept(starts, measure=measure).ready(soon())
    assert [e.closed for e in starts.engines] == [True, False]
    assert engine is starts.engines[1]


def test_a_dead_engine_is_replaced_again_and_again():
    starts = Starts(None)
    engine_keeper = kept(starts)
    for number in range(4):
        engine = engine_keeper.ready(soon())
        assert engine is starts.engines[number]
        assert engine_keeper.restart("died", engine)
        assert not engine_keeper.restart("died", engine)  # only once each
    assert engine_keeper.ready(soon()) is starts.engines[4]
    assert [engine.closed for engine in starts.engines] == [True] * 4 + [False]


def test_no_start_is_begun_that_the_clock_does_not_allow(caplog):
    starts = Starts(None, seconds=0.3)
    engine_keeper = kept(starts, run_s=0.5)
    engine = engine_keeper.ready(soon())  # 0.2 s are left, the start took 0.3 s
    assert not engine_keeper.restart("died", engine)
    assert engine_keeper.ready(soon()) is engine and not engine.closed
    assert "no time is left for another start" in caplog.text
    failing = Starts(RuntimeError("no memory"), seconds=0.3)
    engine_keeper = kept(failing, run_s=0.5)
    with pytest.raises(RuntimeError):
        engine_keeper.ready(soon())
    assert len(failing.times_s) == 1


def test_a_call_returns_what_its_function_returns_or_raises():
    engine_keeper = kept(Starts(None))
    engine = engine_keeper.ready(soon())
    assert engine_keeper.call(engine, lambda: 7, limit_s=30.0) == 7
    with pytest.raises(ZeroDivisionError):
        engine_keeper.call(engine, lambda: 1 / 0, limit_s=30.0)
    assert engine_keeper.ready(soon()) is engine  # no fault of the engine


def raise_(error):
    raise error


def test_a_call_that_ends_with_the_engines_death_replaces_it():
    starts = Starts(None)
    engine_keeper = kept(starts)
    engine = engine_keeper.ready(soon())
    with pytest.raises(EngineError, match="killed"):
        engine_keeper.call(engine, partial(raise_, EngineError("killed")), limit_s=30.0)
    assert engine_keeper.ready(soon()) is starts.engines[1]


def test_a_call_is_left_at_its_limit_and_its_engine_replaced_if_it_never_comes_back(caplog, calm):
    release = threading.Event()

    def leave_a_call():
        starts = Starts(None)
        engine_keeper = kept(starts)
        engine = engine_keeper.ready(soon())
        start_s = time.monotonic()
        assert engine_keeper.call(engine, release.wait, limit_s=0.05) is None
        assert time.monotonic() - start_s < 0.05 + 0.1
        return starts, engine_keeper, engine

    starts, engine_keeper, engine = calm(leave_a_call)
    with pytest.raises(EngineError, match="still busy with the problem before"):
        engine_keeper.ready(soon(0.01))
    assert engine_keeper.ready(soon()) is starts.engines[1]
    assert engine.closed and "ENGINE hangs" in caplog.text
    release.set()


@pytest.mark.parametrize(("error", "replaced"), [(None, False), (EngineError("dead"), True)])
def test_a_call_that_comes_back_a_little_late_is_no_hang(monkeypatch, error, replaced):
    monkeypatch.setattr(keeper, "_HANGS_S", 30.0)
    release = threading.Event()
    engine_keeper = kept(Starts(None))
    engine = engine_keeper.ready(soon())

    def slow():
        release.wait(30)
        if error is not None:
            raise error

    assert engine_keeper.call(engine, slow, limit_s=0.04) is None
    threading.Timer(0.04, release.set).start()
    assert (engine_keeper.ready(soon()) is not engine) == replaced


def test_close_ends_the_engine_and_all_starts():
    starts = Starts(None, seconds=0.1)
    engine_keeper = kept(starts)
    while not starts.times_s:
        time.sleep(0.001)
    engine_keeper.close()  # while it starts
    assert starts.engines[0].closed
    with pytest.raises(EngineError, match="the engine is closed"):
        engine_keeper.ready(soon())
    failing = Starts(RuntimeError("no memory"))
    engine_keeper = kept(failing)
    engine_keeper.close()
    num_starts = len(failing.times_s)
    time.sleep(0.2)
    assert len(failing.times_s) == num_starts
