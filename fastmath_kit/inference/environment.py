"""What vLLM finds in the process's environment while it starts, and what is undone afterwards."""

import contextlib
import io
import os
import sys
import threading
import warnings
from collections.abc import Iterator

_START = threading.Lock()  # the environment belongs to the whole process: one start at a time


@contextlib.contextmanager
def starting_environment(*, in_process: bool) -> Iterator[None]:
    """Holds vLLM's settings while it starts and then undoes what it changed in this process.

    On a CPU vLLM writes LD_PRELOAD for its children and disables `torch.set_num_threads`. Settings
    that the user exported win. Import nothing of vLLM before.
    """
    defaults = {
        "VLLM_LOGGING_LEVEL": "ERROR",  # at WARNING each start on a CPU writes 30 lines
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        "PYTHONWARNINGS": "ignore::FutureWarning",  # of vLLM's processes
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # the cores are shared
    }
    with _START, warnings.catch_warnings(), _real_stdout():
        warnings.simplefilter("ignore", FutureWarning)
        before = dict(os.environ)
        os.environ.update(defaults | before)
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0" if in_process else "1"
        import torch

        set_num_threads = torch.set_num_threads
        try:
            yield
        finally:
            torch.set_num_threads = set_num_threads
            for name in os.environ.keys() - before.keys():
                del os.environ[name]
            os.environ.update(before)


@contextlib.contextmanager
def _real_stdout() -> Iterator[None]:
    """Holds a stdout with a file descriptor, which vLLM asks for and some notebooks lack."""
    try:
        sys.stdout.fileno()
    except io.UnsupportedOperation:
        with contextlib.redirect_stdout(sys.__stdout__):
            yield
    else:
        yield
