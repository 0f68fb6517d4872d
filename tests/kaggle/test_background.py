import threading
from concurrent.futures import wait

import pytest

from fastmath_kit.errors import EngineError
from fastmath_kit.kaggle.background import in_thread


def raise_(error):
    raise error


def test_results_and_errors_arrive_and_threads_hold_up_no_exit():
    daemons = []
    assert in_thread(lambda: daemons.append(threading.current_thread().daemon)).result(5) is None
    assert daemons == [True]
    with pytest.raises(ZeroDivisionError):
        in_thread(lambda: 1 / 0).result(5)
    with pytest.raises(EngineError, match=r"ended with SystemExit\(3\)"):
        in_thread(lambda: raise_(SystemExit(3))).result(5)


def test_what_hangs_can_be_left():
    release = threading.Event()
    hanging = in_thread(release.wait)
    assert not wait([hanging], timeout=0.01).done
    release.set()
    assert hanging.result(5)
