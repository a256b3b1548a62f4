"""Plans: programs read from their text, and the TPU compiler where it is installed."""

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from PIL import Image

from jaxrobust.bench import _plan as bench
from jaxrobust.bench._plan_chips import CHIPS, parse_topology
from jaxrobust.bench._plan_data import data_shape
from jaxrobust.bench._plan_programs import attack_program, steps_per_epoch, train_step_program
from jaxrobust.bench._program_cost import program_cost
from jaxrobust.commands._plan import plan_lines
from jaxrobust.devices import device_mesh, image_rows, replicated
from jaxrobust.experiment import Evaluation, Experiment, Validation, use
from jaxrobust.training import (
    build_model,
    build_optimizer,
    create_state,
    make_train_step,
    step_settings,
)
from jaxrobust.training._prepare import on_device
from jaxrobust.training._program import Alone
from jaxrobust.training._supply import make_supply

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed"
)


def small(**changes):
    experiment = Experiment(
        name="small",
        data=use("digits"),
        model=use("digits_cnn", width=4, batch_norm=True),
        objective=use("trades", steps=3),
        threat=use("linf", eps=0.1),
        epochs=2,
        batch_size=64,
        validation=Validation(size=64),
        evaluation=Evaluation(steps=5, batch_size=20),
    )
    return replace(experiment, **changes)


def compiled(function, *arguments):
    return jax.jit(function).lower(*arguments).compile()


CONVOLUTIONS = [
    {"window_strides": (1, 1), "padding": ((1, 1), (1, 1))},
    {"window_strides": (2, 2), "padding": ((0, 1), (0, 1))},
    {"window_strides": (1, 1), "padding": ((2, 1), (1, 2)), "lhs_dilation": (2, 2)},
    {"window_strides": (1, 1), "padding": ((2, 2), (2, 2)), "rhs_dilation": (2, 2)},
    {"window_strides": (3, 1), "padding": "VALID"},
]


@pytest.mark.parametrize("settings", CONVOLUTIONS)
@pytest.mark.parametrize("groups", [1, 4])
def test_flops_of_a_convolution_are_those_of_the_compiler(settings, groups):
    def convolution(x, kernel):
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
            **settings,
        )

    program = compiled(convolution, jnp.ones((3, 9, 8, 4)), jnp.ones((3, 3, 4 // groups, 8)))
    cost = program_cost(program.as_text())
    assert cost.matrix_flops > 0
    assert cost.matrix_flops == program.cost_analysis()["flops"]


def test_flops_of_a_product():
    program = compiled(lambda a, b: jnp.einsum("bij,bjk->bik", a, b), jnp.ones((2, 3, 64)), jnp.ones((2, 64, 5)))  # fmt: skip
    assert program_cost(program.as_text()).matrix_flops == 2 * 2 * 3 * 64 * 5


def test_bodies_of_loops_count_as_often_as_they_run():
    matrix = jnp.ones((64, 64))

    def run(x):
        def outer(_, x):
            return jax.lax.fori_loop(0, 7, lambda _, y: jnp.tanh(y @ matrix), x @ matrix)

        return jax.lax.fori_loop(0, 3, outer, x)

    program = compiled(run, jnp.ones((64, 64)))
    cost = program_cost(program.as_text())
    assert cost.matrix_flops == 3 * 8 * 2 * 64**3
    assert sorted(cost.loops) == [3, 7]
    assert cost.unknown_loops == 0
    assert cost.memory_bytes > 24 * 3 * 64 * 64 * 4 * 0.9  # two read, one written

    def endless(x):
        return jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: x @ matrix, x)

    cost = program_cost(compiled(endless, jnp.zeros((64, 64))).as_text())
    assert (cost.matrix_flops, cost.unknown_loops) == (2 * 64**3, 1)


def test_a_gather_reads_what_it_takes():
    rows, places = jnp.ones((10_000, 128)), jnp.arange(4)
    cost = program_cost(compiled(lambda rows, places: rows[places] + 1, rows, places).as_text())
    assert 4 * 128 * 4 < cost.memory_bytes < 10 * 4 * 128 * 4


def test_collectives_inside_and_outside_of_loops():
    mesh = device_mesh(None)

    def run(x):
        x = jax.lax.psum(x, "devices")
        return jax.lax.fori_loop(0, 5, lambda _, y: jax.lax.psum(y, "devices") / 8, x)

    mapped = jax.shard_map(run, mesh=mesh, in_specs=P("devices"), out_specs=P(), check_vma=False)
    cost = program_cost(compiled(mapped, jnp.ones((16, 3))).as_text())
    assert dict(cost.collectives) == {("all-reduce", False): 1, ("all-reduce", True): 5}
    assert cost.collective_bytes == 6 * 2 * 3 * 4


@pytest.mark.parametrize("batch_norm", ["global", "per_device"])
def test_the_planned_program_is_the_one_that_training_runs(batch_norm):
    """The same text: planning on shapes leaves nothing out."""
    experiment, mesh = small(batch_norm=batch_norm), device_mesh(None)
    shape = data_shape(experiment)
    function, arguments = train_step_program(experiment, shape, mesh)
    planned = function.lower(*arguments).as_text()

    dataset = experiment.build("data")
    rest, _ = dataset.held_out(experiment.validation.size, seed=experiment.seed)
    steps = steps_per_epoch(experiment, shape)
    model = build_model(experiment, dataset.num_classes)
    optimizer, _ = build_optimizer(experiment, steps)
    state = create_state(experiment, model, optimizer, dataset.image_shape)
    order = np.zeros((steps, experiment.batch_size), np.int32)
    step = make_train_step(step_settings(experiment, optimizer, dataset, steps), mesh)
    replicate = lambda tree: jax.device_put(tree, jax.sharding.NamedSharding(mesh, P()))  # noqa: E731
    real = step.lower(
        *replicate((state, image_rows(rest.train_images), rest.train_labels, order)),
        *replicate(
            (on_device(experiment.build("objective")), on_device(experiment.build("threat")), model)
        ),
    ).as_text()
    assert planned == real


def test_a_helper_that_is_not_there_has_the_form_of_the_network(tmp_path):
    """Its logits are then a part of the step: it takes one pass more of the batch."""
    objective = use("hat", steps=1, beta=2.5, gamma=0.5)
    experiment = small(objective=objective, helper=str(tmp_path / "none"))
    shape, mesh = data_shape(experiment), device_mesh(jax.devices()[:1])
    assert shape.assumed == (f"a helper of the same network: {tmp_path / 'none'} is not there",)
    step, arguments = train_step_program(experiment, shape, mesh)
    helper = arguments[-1].helper
    assert jax.tree.structure(helper.network) == jax.tree.structure(build_model(experiment, 10))
    assert jax.tree.leaves(helper.params)
    assert jax.eval_shape(step, *arguments)


def test_the_plan_of_a_stream_is_of_its_batches(tmp_path):
    for part, count in (("train", 140), ("test", 2)):
        for number in range(count):
            path = tmp_path / part / f"class{number % 2}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    data = {"path": str(tmp_path), "channels": 1}
    no_validation = Validation(size=0)
    experiment = small(data=use("image_folder", **data, stream=True), validation=no_validation)
    shape, mesh = data_shape(experiment), device_mesh(None)
    function, arguments = train_step_program(experiment, shape, mesh)
    planned = function.lower(*arguments).as_text()

    dataset = experiment.build("data")
    supply = make_supply([experiment], {experiment.seed: dataset}, Alone(None))
    steps = steps_per_epoch(experiment, shape)
    model = build_model(experiment, dataset.num_classes)
    optimizer, _ = build_optimizer(experiment, steps)
    state = create_state(experiment, model, optimizer, dataset.image_shape)
    settings = step_settings(experiment, optimizer, dataset, steps)
    parts = (on_device(experiment.build("objective")), on_device(experiment.build("threat")), model)
    state, parts = replicated((state, parts), mesh)
    step = make_train_step(settings, mesh, streamed=True)
    assert planned == step.lower(state, *supply.at(0), *parts).as_text()
    supply.close()
    assert steps == supply.steps_per_epoch


def test_the_attack_has_no_collectives():
    (function, arguments), batch_size = attack_program(small(), data_shape(small()), device_mesh(None))  # fmt: skip
    assert batch_size == 24  # three for every device
    cost = program_cost(function.lower(*arguments).compile().as_text())
    assert not cost.collectives
    assert 5 in cost.loops


def test_the_data_is_known_by_its_name(tmp_path):
    experiment = small(data=use("cifar10"), validation=Validation(size=1024))
    assert data_shape(experiment)[:4] == (50_000 - 1024, 0, (32, 32, 3), 10)
    mixed = replace(experiment, generated=use("generated", path=str(tmp_path / "extra.npz")))
    shape = data_shape(mixed)
    assert shape.generated_size == 1_000_000
    assert "1,000,000 generated images" in shape.assumed[0]
    assert data_shape(mixed, generated_size=5).generated_size == 5
    np.savez(tmp_path / "extra.npz", image=np.zeros((9, 32, 32, 3), np.uint8), label=np.arange(9))
    assert data_shape(mixed).generated_size == 9
    assert not data_shape(mixed).assumed
    assert steps_per_epoch(replace(mixed, batch_size=512), shape) == 96
    (tmp_path / "extra.npz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="is no npz with labels"):
        data_shape(mixed)
    digits = data_shape(small())
    assert digits[2:5] == ((8, 8, 1), 10, 16)


def test_topologies_are_checked():
    assert parse_topology("v4:2x2x4") == (CHIPS["v4"], (2, 2, 4))
    with pytest.raises(ValueError, match="chip 'v9' is unknown; choose v4, v5e, v5p, v6e"):
        parse_topology("v9:2x2")
    for wrong in ("v5e:16", "v5e:2x2x2", "v5e", "v5e:0x4", "v5e:axb"):
        with pytest.raises(ValueError, match="v5e has 2 axes, as v5e:4x4"):
            parse_topology(wrong)


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 8, 20])
@pytest.mark.parametrize("start", [8, 16, 64])
def test_the_largest_batch_is_found_with_few_compilations(limit, start, monkeypatch):
    compilations = []

    def fake(name, experiment, mesh, chip, program):
        compilations.append(experiment.batch_size)
        return SimpleNamespace(fits=experiment.batch_size <= 8 * limit)

    monkeypatch.setattr(bench, "_compiled", fake)
    monkeypatch.setattr(bench, "train_step_program", lambda *args: None)
    shape = data_shape(small())  # 1309 examples
    known = SimpleNamespace(batch_size=start, fits=start <= 8 * limit)
    found = bench._largest_batch(small(batch_size=start), shape, SimpleNamespace(size=8), None, known, print)  # fmt: skip
    powers = [8 * 2**k for k in range(8) if 2**k <= limit and 8 * 2**k <= 1309]
    assert found == max(powers, default=0)
    assert len(compilations) == len(set(compilations)) <= 5


def planned(*words, **environment):
    command = [
        sys.executable,
        "-m",
        "jaxrobust.cli",
        "plan",
        "experiments/digits_trades.py",
        *words,
    ]
    defaults = {"ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "JAX_ENABLE_COMPILATION_CACHE": "false"}
    environment = {**os.environ, **defaults, **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)


@needs_libtpu
@pytest.mark.multiprocess
@pytest.mark.parametrize(("topology", "chips"), [("v5e:2x4", 8), ("v4:2x2x1", 4)])
def test_a_plan_by_the_tpu_compiler(topology, chips, tmp_path):
    done = planned("--topology", topology, "--json", str(tmp_path / "plan.json"))
    assert done.returncode == 0, done.stderr
    assert "Nothing ran" in done.stdout
    found = json.loads((tmp_path / "plan.json").read_text())
    assert found["ran"] is False
    assert found["chips"] == chips
    step, attack = found["programs"]
    assert step["fits"]
    assert step["collectives"] == 1  # gradients and metrics together
    assert step["collectives_in_loops"] == attack["collectives"] == 0
    assert step["flops"] > 2 * step["xla_flops"]  # ten steps of the attack, which XLA counts once
    times = [step[f"{part}_seconds"] for part in ("compute", "traffic", "collective")]
    assert step["bound_seconds"] == max(times) > 0
    assert found["chip_hours"] == pytest.approx(
        chips * found["steps"] * step["bound_seconds"] / 3600
    )
    assert 0 < step["bytes_per_chip"] < step["memory_bytes"]


@needs_libtpu
@pytest.mark.multiprocess
def test_what_does_not_fit_is_said(tmp_path):
    done = planned(
        *("--topology", "v5e:1x1", "--no-attack", "--set", "data=cifar10", "--set", "model=mlp"),
        *("--set", 'generated={"name": "generated", "kwargs": {"path": "none.npz"}}'),
        *("--generated-size", "10000000"),
    )
    assert done.returncode == 0, done.stderr
    assert "does not fit" in done.stdout
    assert "RESOURCE_EXHAUSTED" in done.stdout
    assert "whole training" not in done.stdout


@pytest.mark.parametrize(("room", "fits"), [(2.0**40, True), (2.0**16, False)])
def test_what_compiles_and_needs_more_than_there_is_does_not_fit(room, fits):
    chip, mesh = CHIPS["v5e"]._replace(memory_bytes=room), device_mesh(jax.devices()[:1])
    weights = jax.ShapeDtypeStruct((300, 300), jnp.float32)
    found = bench._compiled("product", small(), mesh, chip, (jax.jit(jnp.dot), (weights, weights)))
    assert found.fits == fits
    assert found.problem == ("" if fits else "it needs 0.00 GiB per chip")
    assert found.bytes_per_chip > 3 * 4 * 300**2 - 1


@needs_libtpu
@pytest.mark.multiprocess
def test_another_process_with_the_compiler_is_named(tmp_path):
    hold = (
        "import time\n"
        "from jax.experimental.topologies import get_topology_desc\n"
        "get_topology_desc('v5e:2x2', platform='tpu')\n"
        "print('held', flush=True)\n"
        "time.sleep(60)\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "ALLOW_MULTIPLE_LIBTPU_LOAD"}
    environment |= {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1"}
    command = [sys.executable, "-c", hold]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as holder:  # fmt: skip
        try:
            holder.stdout.readline()  # held, or nothing: then it is held already
            done = planned("--topology", "v5e:2x2", ALLOW_MULTIPLE_LIBTPU_LOAD="0")
        finally:
            holder.kill()
    assert done.returncode == 2
    assert done.stderr.startswith("jaxrobust: another process holds the TPU compiler")
    assert len(done.stderr.splitlines()) == 1


def test_a_missing_compiler_is_said(monkeypatch):
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(OSError, match=r"libtpu: pip install 'jaxrobust\[tpu\]'"):
        bench.plan(small(), "v5e:2x2")


def test_words_of_a_plan():
    program = bench.ProgramPlan("train step", 64, 3.0, False, "too large", 2.0**34)
    found = bench.Plan("x", "v5e:2x2", 4, 10, (program,), 0.0, 0.0, 0, ("a guess",), "somewhere")
    text = "\n".join(plan_lines(found))
    assert "does not fit (compiled in 3 s): too large" in text
    assert "assumed: a guess" in text
    assert "no batch fits" in text
