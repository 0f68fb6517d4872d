import logging
import threading

import pytest

from fastmath_kit.inference import page_cache
from fastmath_kit.inference.page_cache import free_memory_bytes, read_ahead


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Weight files of 4, 2 and 0.1 MB, read in chunks of 1 MB, and one that holds no weights."""
    monkeypatch.setattr(page_cache, "_CHUNK_BYTES", 1_000_000)
    sizes = {"a.safetensors": 40, "b.safetensors": 20, "c.safetensors": 1, "notes.txt": 5}
    for name, megabytes in sizes.items():
        (tmp_path / name).write_bytes(bytes(megabytes * 100_000))
    return tmp_path


def test_all_weights_are_read_with_progress_in_the_log(folder, caplog):
    with caplog.at_level(logging.INFO):
        result = read_ahead(folder)
    assert (result.num_bytes, result.left_out_bytes) == (6_100_000, 0)
    assert 0 < result.seconds < 5
    assert "page cache: 0.01 GB of 0.01 GB" in caplog.text


@pytest.mark.parametrize(
    ("free_bytes", "num_bytes"),
    [
        (6_000_000, 4_100_000),  # 4.8 MB may be used: the first and the last
        (3_000_000, 2_100_000),
        (0, 0),
        (None, 0),  # nobody knows: nothing is read ahead
    ],
)
def test_only_files_that_fit_the_free_memory_are_read(
    folder, monkeypatch, caplog, free_bytes, num_bytes
):
    monkeypatch.setattr(page_cache, "free_memory_bytes", lambda: free_bytes)
    result = read_ahead(folder)
    assert result.num_bytes == num_bytes
    assert result.left_out_bytes == 6_100_000 - num_bytes
    assert "do not fit the memory" in caplog.text


def test_it_stops_when_it_is_told_and_nothing_to_read_is_no_error(folder, tmp_path):
    stop = threading.Event()
    stop.set()
    assert read_ahead(folder, stop=stop).num_bytes == 0
    assert read_ahead(tmp_path / "none").num_bytes == 0


def test_a_file_that_cannot_be_read_is_left_to_vllm(tmp_path, caplog, monkeypatch):
    class Broken(type(tmp_path)):
        def open(self, *args, **kwargs):
            raise OSError("bad disk")

    (tmp_path / "a.safetensors").write_bytes(b"x" * 10)
    monkeypatch.setattr(page_cache, "Path", Broken)
    monkeypatch.setattr(page_cache, "free_memory_bytes", lambda: 10**9)
    assert read_ahead(tmp_path).num_bytes == 0
    assert "is not read ahead (bad disk)" in caplog.text


@pytest.mark.parametrize(
    ("files", "expected_bytes"),
    [
        ({"memory.max": "5000\n", "memory.stat": "anon 2000\nfile 2900\n"}, [3_000]),
        ({"memory.max": "max\n", "memory.stat": "anon 2000\n"}, []),
        ({"memory/memory.limit_in_bytes": "9000", "memory/memory.stat": "total_rss 1000"}, [8_000]),
        ({}, []),
    ],
)
def test_a_containers_limit_counts(tmp_path, monkeypatch, files, expected_bytes):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(page_cache, "_CGROUP", tmp_path)
    assert page_cache._container_bytes() == expected_bytes
    assert 0 < free_memory_bytes() <= min([10**15, *expected_bytes])
