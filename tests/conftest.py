from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings

# A busy machine may pause an example for longer than Hypothesis allows one to take.
settings.register_profile("calm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("calm")


@pytest.fixture(scope="session")
def calm() -> Callable[..., object]:
    """Runs a test of times again when it fails: a paused machine fails it once, a fault always."""

    def run(attempt: Callable[[], object], num_tries: int = 3) -> object:
        """Returns what the first attempt that does not fail returns; each builds its own state."""
        for _ in range(num_tries - 1):
            try:
                return attempt()
            except Exception:
                continue
        return attempt()

    return run


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """A folder with the miniature's tokenizer and a model of random weights."""
    from fastmath_kit.tiny import write_model

    return write_model(tmp_path_factory.mktemp("tiny") / "model", seed=0)
