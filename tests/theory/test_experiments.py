"""The theory's experiments run as a user runs them, and fail when a check fails."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

from jaxrobust.evaluation import Check

ROOT = pathlib.Path(__file__).parents[2]
SMALL = {
    "theory_trades": ["--steps", "2", "--draws", "40"],
    "theory_spatial": ["--draws", "2000"],
    "theory_score": ["--steps", "20", "--samples", "240"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_script_runs_and_draws(name, tmp_path):
    command = [sys.executable, str(ROOT / "experiments" / f"{name}.py"), *SMALL[name]]
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    run = subprocess.run(
        [*command, "--out", str(tmp_path)], capture_output=True, text=True, env=environment
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    assert "FAIL" not in run.stdout
    assert run.stderr == ""
    picture = (tmp_path / f"{name}.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 20_000
    checks = json.loads((tmp_path / "results.json").read_text())["checks"]
    assert len(checks) >= 15
    assert all(check["passed"] for check in checks)


@pytest.mark.parametrize("passed", [True, False])
def test_a_failed_check_is_the_exit_status(passed, tmp_path, monkeypatch, capsys):
    path = ROOT / "experiments" / "theory_trades.py"
    spec = importlib.util.spec_from_file_location("theory_trades", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    parts = {
        "decomposition": ([Check("one", True, 0.0, 0.0, "")], {}),
        "psi_transforms": ([Check("two", passed, 0.0, 0.0, "")], {}),
        "upper_bound": ([], {}, None),
        "hinge_networks": ([], []),
        "draw": None,
    }
    for part, value in parts.items():
        monkeypatch.setattr(script, part, lambda *_, value=value: value)
    monkeypatch.setattr(sys, "argv", ["theory_trades.py", "--out", str(tmp_path)])
    assert script.main() == int(not passed)
    assert (f"{'pass' if passed else 'FAIL'}  two" in capsys.readouterr().out) is True
