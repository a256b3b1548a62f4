"""`python -m benchmarks`: what its commands measure is kept, and printed again by `table`."""

import sys

import pytest
from click.testing import CliRunner

from benchmarks import commands
from benchmarks.__main__ import benchmarks
from benchmarks.form_tables import LoopRow, TransformRow
from benchmarks.pytorch_passes import TorchRow
from benchmarks.pytorch_step import TorchStepRow
from jaxrobust.cli import main

NAN = float("nan")


@pytest.fixture
def measured(monkeypatch):
    """Tables that take no time."""
    loops = [
        LoopRow("unrolled", 3, 2.0, 0.5, 1.0),
        LoopRow("rolled", 3, 1.0, 0.4, 1.0),
        LoopRow("rolled", 12, 1.1, NAN, 1.0),
    ]
    step = [
        TorchStepRow("jaxrobust", 3.0, 0.4, 1.0, 2.0, 0.0),
        TorchStepRow("PyTorch eager", NAN, 0.2, 2.0, 2.0, 1e-4),
        TorchStepRow("PyTorch torch.compile", NAN, NAN, NAN, NAN, NAN, "no C++ compiler"),
    ]
    made = {
        "loop_table": loops,
        "transform_table": [TransformRow("bilinear", 0.6, 0.5, 1 / 6)],
        "torch_table": [TorchRow("forward", 2, 0.03, 0.02, 1.5, 1e-6)],
        "torch_step_table": step,
    }
    for name, rows in made.items():
        monkeypatch.setattr(commands, name, lambda rows=rows, **settings: rows)


@pytest.mark.parametrize(
    ("command", "rows"),
    [
        (
            "forms",
            [
                "| PGD-3, rolled | 400 ms | unrolled | 500 ms | 0.80 |",
                "| compilation of PGD-12 | 1.1 s | PGD-3 | 1 s | 1.10 |",
                "| train step, pgd_at, images moved (bilinear) | 600 ms | without | 500 ms | 1.20 |",
            ],
        ),
        (
            "pytorch",
            [
                "| forward | 30 ms | PyTorch eager | 20 ms | 1.50 |",
                "| train step, trades | 400 ms | PyTorch eager | 200 ms | 2.00 |",
                "| train step, trades | 400 ms | PyTorch torch.compile | no C++ compiler | - |",
            ],
        ),
    ],
)
def test_rows_are_kept_and_printed_again(measured, tmp_path, command, rows):
    path = str(tmp_path / "rows.json")
    done = CliRunner().invoke(benchmarks, [command, "--steps", "3", "--json", path])
    assert done.exit_code == 0, done.output
    table = CliRunner().invoke(benchmarks, ["table", path]).output.splitlines()
    assert table[0].startswith("| what (")
    assert table[2:] == rows


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '{"bench": "attack", "rows": []}',
            "is of bench 'attack', not of audit or bounds or compile or convolutions",
        ),
        ('{"bench": "peers"}', "holds no rows of a benchmark (KeyError: 'rows')"),
        ("no JSON", "holds no rows of a benchmark (JSONDecodeError: "),
    ],
)
def test_a_table_of_another_file_ends_in_one_line(tmp_path, monkeypatch, capfd, text, expected):
    path = tmp_path / "rows.json"
    path.write_text(text)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "table", str(path)])
    monkeypatch.setattr("jaxrobust.cli.set_up_compilation_cache", lambda: None)
    with pytest.raises(SystemExit) as ended:
        main(benchmarks)
    assert ended.value.code == 2
    err = capfd.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith(f"jaxrobust: {path} {expected}")
