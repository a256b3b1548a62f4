"""Mutants are small, many, drawn by a seed, and all but comments and messages are changed."""

import ast

import pytest

from benchmarks import mutants


@pytest.mark.parametrize("room", mutants.ROOMS)
def test_every_mutant_is_python_and_another_program(room):
    found = mutants.drawn(room, 40, 0)
    assert len(found) == 40
    for mutant in found:
        text, end = (mutants.ROOT / mutant.file).read_text(), mutant.start + len(mutant.old)
        assert text[mutant.start : end] == mutant.old
        assert text[: mutant.start].count("\n") + 1 == mutant.line
        changed = text[: mutant.start] + mutant.new + text[end:]
        assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(text)), mutant


def test_a_seed_draws_the_same_mutants():
    assert mutants.drawn("losses", 5, 1) == mutants.drawn("losses", 5, 1)
    assert mutants.drawn("losses", 5, 1) != mutants.drawn("losses", 5, 2)


def test_the_kinds_of_change(monkeypatch, tmp_path):
    (tmp_path / "one.py").write_text(
        'def f(x: int = 3) -> "1 + 1":\n    """1 + 1"""\n'
        "    if x < 2:\n        raise ValueError(x - 1)\n"
        "    return jax.lax.stop_gradient(-x).max() * 4 + 'ü'\n"
    )
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    changes = [(m.old, m.new) for m in mutants.mutants_of("one.py")]
    assert changes == [
        ("3", "4"),
        ("<", "<="),
        ("2", "3"),
        ("jax.lax.stop_gradient", ""),
        ("-", ""),
        ("max", "min"),
        ("*", "/"),
        ("4", "5"),
        ("+", "-"),
    ]


def test_a_room_s_tests_run_whole_and_what_names_the_file_first():
    mutant = mutants.Mutant("jaxrobust/attacks/_fmn.py", 0, "", "", 1)
    file, first, *others, doctests = mutants.tests_of(mutant, "attacks")
    assert (file, doctests) == (mutant.file, "jaxrobust/attacks")
    assert first == "tests/attacks/test_fmn.py"
    every = {f"tests/attacks/{p.name}" for p in (mutants.ROOT / "tests/attacks").glob("test_*.py")}
    assert {first, *others} == every


@pytest.mark.slow
@pytest.mark.multiprocess
def test_a_wrong_sign_is_caught_and_an_unread_name_survives():
    file = "jaxrobust/losses/_margins.py"
    found = next(m for m in mutants.mutants_of(file) if m.old in "+-" and m.new in "+-" and m.new)
    test = ["tests/losses/test_losses.py"]
    assert mutants.tried(found, test) == "caught"
    assert mutants.tried(found._replace(new=found.old), test) == "survived"


@pytest.mark.slow
@pytest.mark.multiprocess
def test_a_loop_without_an_end_runs_into_the_time_limit(monkeypatch):
    monkeypatch.setattr(mutants, "SECONDS", 15)
    file = "jaxrobust/losses/_margins.py"
    start = (mutants.ROOT / file).read_text().index("    return")
    endless = mutants.Mutant(file, start, "    return", "    while True: pass\n    return", 1)
    assert mutants.tried(endless, ["tests/losses/test_losses.py"]) == "endless"
