"""Files are replaced whole; what is no file is written to."""

import os
import stat
import threading
import zipfile

import pytest

from jaxrobust import files
from jaxrobust.commands import markdown_table
from jaxrobust.data import npz
from jaxrobust.files import beside, replace_text
from jaxrobust.models import read_torch_checkpoint
from jaxrobust.rows import read_rows
from jaxrobust.training import read_config


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


def test_json_that_is_nested_too_deeply_is_no_json(tmp_path):
    """Python's parser raises RecursionError, which nobody expects."""
    deep = "[" * 100_000 + "]" * 100_000
    with pytest.raises(ValueError, match="nested too deeply"):
        files.parse_json(deep)
    (tmp_path / "rows.jsonl").write_text('{"a": ' + deep + '}\n{"b": 1}\n')
    assert read_rows(tmp_path / "rows.jsonl") == [{"b": 1}]
    for text in (deep, "{}"):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ValueError, match=r"config\.json"):
            read_config(tmp_path, say=lambda line: None)
    (tmp_path / "results.json").write_text(deep)
    with pytest.raises(ValueError, match="is not valid JSON or is damaged"):
        markdown_table(tmp_path / "results.json")


def test_an_entry_that_claims_more_than_there_is_is_refused(tmp_path):
    """A fuzzer found it: a 568-byte file of weights that took a gigabyte."""
    for name, read in (
        ("x.pt", read_torch_checkpoint),
        ("x.npz", lambda path: npz(str(path), test_size=1)),
    ):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("x/data.pkl", bytes(40))
        content = (tmp_path / name).read_bytes()
        place = content.index(b"PK\x01\x02") + 20  # the size in the directory at the end
        forged = content[:place] + (2**31 - 2).to_bytes(4, "little") + content[place + 4 :]
        (tmp_path / name).write_bytes(forged)
        with pytest.raises(ValueError, match=r"x/data\.pkl claims 2147483646 of \d+ bytes"):
            read(tmp_path / name)
