import time
from collections.abc import Callable

import pytest


@pytest.fixture(scope="session")
def comes_true() -> Callable[..., bool]:
    """Whether a condition holds within about ten seconds."""

    def look(condition: Callable[[], bool], num_looks: int = 1_000) -> bool:
        """Looks every 10 ms; counts looks, since a paused machine's clock goes on."""
        for _ in range(num_looks):
            if condition():
                return True
            time.sleep(0.01)
        return False

    return look
