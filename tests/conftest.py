import pytest


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """A folder with the miniature's tokenizer and a model of random weights."""
    from fastmath_kit.tiny import write_model

    return write_model(tmp_path_factory.mktemp("tiny") / "model", seed=0)
