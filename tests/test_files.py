"""Files are replaced whole; what is no file is written to."""

import os
import stat
import threading

import pytest

from jaxrobust.files import beside, replace_text


def fail_half_way(path):
    with beside(path) as temporary:
        temporary.write_text("ne")
        raise RuntimeError


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "rows.json"
    replace_text(path, "old")
    with pytest.raises(RuntimeError):
        fail_half_way(path)
    assert path.read_text() == "old"
    replace_text(path, "new")
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["rows.json"]


def test_a_pipe_is_written_to_and_stays_one(tmp_path):
    path, read = tmp_path / "pipe", []
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: read.append(path.read_text()))
    reader.start()
    replace_text(path, "a row")
    reader.join(timeout=10)
    assert read == ["a row"]
    assert stat.S_ISFIFO(path.stat().st_mode)
