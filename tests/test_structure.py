"""The house rules: layers, import cost, public docstrings and signatures."""

import ast
import importlib
import inspect
import pathlib
import subprocess
import sys
import types

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "jaxrobust"

# A file imports strictly lower layers, or its own folder.
LAYERS = {
    "typing": 0,
    "inputs": 0,
    "reasons": 0,
    "files": 0,
    "digests": 0,
    "locks": 1,
    "interrupts": 0,
    "precision": 0,
    "verdicts": 0,
    "devices": 0,
    "drawing": 0,
    "progress": 0,
    "spec": 0,
    "shipped": 0,
    "convolutions": 0,
    "loops": 0,
    "keys": 1,
    "storage": 1,
    "processes": 1,
    "attackable": 1,
    "twins": 1,
    "scaling": 1,
    "rows": 2,
    "networks": 2,
    "losses": 2,
    "threats": 2,
    "data": 2,
    "augment": 2,
    "schedules": 2,
    "curricula": 2,
    "attacks": 3,
    "bounds": 3,
    "mixing": 3,
    "models": 4,
    "objectives": 4,
    "theory": 4,
    "evaluation": 4,
    "evaluators": 5,
    "experiment": 6,
    "training": 7,
    "bench": 8,
    "commands": 9,
    "cli_options": 10,
    "cli_cache": 10,
    "cli_help": 10,
    "cli_ends": 11,
    "cli_evaluate": 11,
    "cli_mixed": 11,
    "cli_bench": 11,
    "cli": 12,
}
STILL_PRIVATE = {  # imports of another room's private files that are to go
}
LIGHT = ("flax", "orbax", "tensorflow_datasets", "optax", "sklearn", "matplotlib", "pydantic")


def files() -> list[pathlib.Path]:
    return [p for p in sorted(PACKAGE.rglob("*.py")) if p.parent != PACKAGE or p.stem != "__init__"]


def room(path: pathlib.Path) -> str:
    if path in OUTSIDE:
        return ""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: pathlib.Path) -> set[str]:
    """The rooms of the library that a file imports, at any depth of it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            parts = node.module.split(".")
            if parts[0] == "jaxrobust":
                found |= {parts[1]} if len(parts) > 1 else {a.name for a in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("jaxrobust.")}
    return found


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_layer_imports_only_lower_layers(path):
    here = room(path)
    assert here in LAYERS, f"{here} has no layer: add it to LAYERS"
    for other in imports(path) - {here}:
        assert LAYERS[other] < LAYERS[here], f"{path.name} of {here} imports {other}"


def private_imports(path: pathlib.Path) -> list[str]:
    """What a file imports from files of another room whose names begin with an underscore."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        modules = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        for module in modules:
            library, _, inner = module.partition(".")
            private = any(part.startswith("_") for part in inner.split("."))
            if library == "jaxrobust" and private and inner.split(".")[0] != room(path):
                found.append(module)
    return found


OUTSIDE = sorted((ROOT / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("path", [*files(), *OUTSIDE], ids=lambda p: str(p.relative_to(ROOT)))
def test_no_file_imports_another_rooms_private_file(path):
    assert set(private_imports(path)) <= STILL_PRIVATE.get(path.name, set())


def test_the_private_test_sees_imports(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    path = tmp_path / "room.py"
    path.write_text("def f():\n    from jaxrobust.attacks._pgd import pgd\n")
    assert private_imports(path) == ["jaxrobust.attacks._pgd"]


def test_the_layer_test_sees_imports():
    assert {"losses", "threats", "typing"} <= imports(PACKAGE / "objectives" / "_trades.py")


def loaded(statement: str) -> set[str]:
    """Top-level modules that a fresh process has after a statement."""
    code = f"{statement}\nimport sys\nprint(*{{m.split('.')[0] for m in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_losses_and_attacks_are_light():
    names = loaded(
        "import jaxrobust.losses, jaxrobust.attacks, jaxrobust.bounds, jaxrobust.threats"
    )
    assert "jax" in names
    assert not names & set(LIGHT)


def test_the_light_test_can_fail():
    assert {"flax", "orbax", "optax"} <= loaded("import jaxrobust.training")


def test_help_does_not_load_jax():
    assert "jax" not in loaded("import jaxrobust.cli")


PUBLIC = ("losses", "threats", "attacks", "models", "data", "augment", "schedules", "objectives")
PUBLIC += ("networks", "evaluation", "evaluators", "convolutions", "training", "mixing")
PUBLIC += ("theory", "curricula", "twins", "scaling", "bounds")


def exported() -> list[tuple[str, object]]:
    found = []
    for name in PUBLIC:
        module = importlib.import_module(f"jaxrobust.{name}")
        for attribute, value in vars(module).items():
            public = not attribute.startswith("_") and not isinstance(value, types.ModuleType)
            if public and getattr(value, "__module__", "").startswith("jaxrobust"):
                found.append((f"{name}.{attribute}", value))
    return found


@pytest.mark.parametrize(("name", "value"), exported(), ids=[n for n, _ in exported()])
def test_public_docstrings(name, value):
    doc = inspect.getdoc(value) or ""
    first = doc.split("\n")[0]
    assert first, f"{name} has no docstring"
    assert first.endswith((".", ":")), f"{name}: the first line is a sentence on one line"
    if inspect.isfunction(value):
        parameters = inspect.signature(value).parameters
        for section in ("Args:", "Returns:") if parameters else ("Returns:",):
            assert section in doc, f"{name} has no section {section}"
        for parameter in parameters:
            assert f"{parameter}:" in doc or f"*{parameter}" in doc, f"{name}: {parameter}"


PUBLISHED_ORDER = {("evaluation.optimality", "clean_accuracy")}  # as AttackBench calls it


@pytest.mark.parametrize(("name", "value"), exported(), ids=[n for n, _ in exported()])
def test_hyper_parameters_are_keyword_only(name, value):
    if not inspect.isfunction(value):
        return
    for parameter in inspect.signature(value).parameters.values():
        positional = parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        if positional and (name, parameter.name) not in PUBLISHED_ORDER:
            assert parameter.default is parameter.empty, f"{name}({parameter.name}=...)"


LIBRARY_FUNCTIONS = [
    (n, v)
    for n, v in exported()
    if inspect.isfunction(v)
    and n.split(".")[0]
    in (
        "losses",
        "threats",
        "attacks",
        "data",
        "models",
        "mixing",
        "theory",
        "schedules",
        "networks",
        "twins",
        "bounds",
    )
]


@pytest.mark.parametrize(
    ("name", "value"), LIBRARY_FUNCTIONS, ids=[n for n, _ in LIBRARY_FUNCTIONS]
)
def test_public_functions_have_a_running_example(name, value):
    if name in ("threats.l1_box_correction",):  # shown by the threat that uses it
        return
    assert ">>>" in inspect.getdoc(value), f"{name} has no example"


def test_nothing_is_named_utils():
    assert not list(PACKAGE.rglob("*util*"))
