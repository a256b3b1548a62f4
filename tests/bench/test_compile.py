"""Compile times: fresh processes, forms that must agree, rows, the figure and its command."""

import importlib.util
import json

import jax
import pytest
from click.testing import CliRunner

from benchmarks import compile_table as bench
from benchmarks.__main__ import benchmarks
from benchmarks.compile_case import Case, checked, parts_of
from benchmarks.compile_figure import draw_compile_curves
from benchmarks.compile_table import compile_table, curves, variants
from benchmarks.markdown import table
from jaxrobust.devices import device_mesh

TINY = Case("pgd", steps=2, depth=10, batch_size=2, size=8)


@pytest.mark.slow
@pytest.mark.multiprocess
def test_fresh_processes_measure_every_stage():
    stock = TINY._replace(form="stock")
    rows = compile_table([TINY, stock], repeats=1, again=[TINY])
    for row in rows:
        assert not row.problem
        assert row.repeats == 1
        assert row.difference < 0.02
        figures = {name: spread.median for name, spread in row.figures.items()}
        stages = [figures[f"{name}_seconds"] for name in ("trace", "lower", "compile")]
        assert min(stages) > 0
        assert figures["total_seconds"] == pytest.approx(sum(stages))
        assert figures["instructions"] > 100
        assert figures["temporary_bytes"] > 0
        assert figures["steady_seconds"] > 0
    again, alone = ({name for name in row.figures if name.startswith("warm_")} for row in rows)
    assert again
    assert not alone
    warm = rows[0].figures["warm_compile_seconds"].median
    assert warm < rows[0].figures["compile_seconds"].median  # found in the cache
    exported = importlib.util.find_spec("flatbuffers") is not None
    assert ("exported_compile_seconds" in rows[0].figures) == exported


@pytest.mark.parametrize("program", ["train step", "apgd", "autoattack"])
def test_programs_are_functions_of_flat_arrays(program):
    case = TINY._replace(program=program)
    parts = parts_of(case, device_mesh(jax.devices()[:1]), lambda tree, split: jax.device_put(tree))
    assert [p.name for p in parts] == (
        ["apgd-ce", "apgd-t", "fab-t", "square"] if program == "autoattack" else [program]
    )
    for part in parts:
        assert all(hasattr(leaf, "shape") for leaf in part.arguments)
        assert jax.eval_shape(part.function, *part.arguments)


def fake(values):
    def measured(task, limit_seconds):
        if task["case"]["form"] == "scanned":
            return {"problem": f"not finished in {limit_seconds / 60:g} minutes"}
        form = task["case"]["form"]
        steps = task["case"]["steps"] + len(values)  # something that rises
        seconds = {"trace_seconds": 1.0, "total_seconds": steps, "total_cpu_seconds": steps}
        return {**seconds, "steady_cpu_seconds": steps, "values": [values.get(form, 1.0)]}

    return measured


def test_forms_that_disagree_are_not_reported(monkeypatch):
    monkeypatch.setattr(bench, "_measured", fake({"unrolled": 1.01}))
    rows = compile_table(variants("pgd", depth=28), repeats=2)
    assert max(row.difference for row in rows if not row.problem) == pytest.approx(0.01)
    monkeypatch.setattr(bench, "_measured", fake({"unrolled": 1.03}))
    with pytest.raises(AssertionError, match=r"form='unrolled'.* by 0.03"):
        compile_table(variants("pgd"), repeats=1)


def test_a_case_that_fails_has_a_row_that_says_so(monkeypatch):
    monkeypatch.setattr(bench, "_measured", fake({}))
    rows = compile_table(variants("pgd", depth=28), repeats=2, limit_seconds=90)
    (failed,) = [row for row in rows if row.problem]
    assert (failed.case.form, failed.problem) == ("scanned", "not finished in 1.5 minutes")
    assert not failed.figures
    assert all(row.repeats == 2 for row in rows if row is not failed)


def test_a_process_that_takes_too_long_is_ended():
    (row,) = compile_table([TINY], repeats=1, limit_seconds=0.01)
    assert row.problem.startswith("not finished in ")


def test_ctrl_c_keeps_complete_repeats(monkeypatch):
    calls = []

    def interrupted(task, limit_seconds):
        calls.append(task)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return {"trace_seconds": float(len(calls)), "values": [1.0]}

    monkeypatch.setattr(bench, "_measured", interrupted)
    cases = [TINY, TINY._replace(form="unrolled")]
    rows = compile_table(cases, repeats=5)
    assert [row.figures["trace_seconds"].median for row in rows] == [1.0, 2.0]
    assert len(calls) == 3


def test_wrong_cases_are_refused():
    for changes, message in (
        ({"program": "cw"}, "program 'cw' is unknown; choose train step, pgd"),
        ({"form": "fast"}, "form 'fast' is unknown; choose eager, rolled"),
        ({"model": "mlp"}, "model must be wide_resnet or preact_resnet18, got 'mlp'"),
        ({"model": "preact_resnet18", "form": "scanned"}, "only wide_resnet has scanned"),
        ({"program": "autoattack", "form": "unrolled"}, "autoattack has no unrolled form"),
        ({"depth": 11}, "depth must be 6 n"),
    ):
        with pytest.raises(ValueError, match=message):
            checked(TINY._replace(**changes))


def test_the_figure_and_the_table(monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "_measured", fake({}))
    rows = compile_table(curves([1, 10, 100], [10, 28], width=1), repeats=2)
    draw_compile_curves(tmp_path / "curves.png", rows, title="a machine")
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    words = ["compile", "--program", "pgd", "--depth", "28", "--repeats", "1", "--quiet"]
    words += ["--json", str(tmp_path / "rows.json")]
    done = CliRunner().invoke(benchmarks, words, catch_exceptions=False)
    assert done.exit_code == 0
    assert "not finished in 15 minutes" in done.output
    found = json.loads((tmp_path / "rows.json").read_text())
    assert found["bench"] == "compile"
    assert found["machine"]["cores"] >= 1
    lines = table(tmp_path / "rows.json").splitlines()
    assert lines[0].startswith("| program, form (")
    assert len(lines) == 2 + len(found["rows"])
    assert "not finished in 15 minutes" in "\n".join(lines)


def test_wrong_options_are_refused():
    for words, message in (
        (["--figure", "x.png", "--curve-steps", "1,x"], "--curve-steps must be positive integers"),
        (["--topology", "v9:2x2"], "chip 'v9' is unknown"),
        (
            ["--topology", "v5e:2x2", "--steps", "10", "--model", "wide_resnet"],
            "--model, --steps has no effect with",
        ),
        (["--curve-steps", "1,2"], "--curve-steps belongs to --figure"),
        (["--model", "preact_resnet18", "--depth", "22"], "--depth belongs to --model wide_resnet"),
    ):
        done = CliRunner().invoke(benchmarks, ["compile", *words])
        assert done.exit_code != 0
        assert message in f"{done.exception} {done.output}"
