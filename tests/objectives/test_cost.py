"""What every objective says that it costs, against the operations of its traced train step."""

import dataclasses
import inspect
import itertools
import re

import jax
import jax.numpy as jnp
import pytest
from jax.interpreters import partial_eval

from jaxrobust.bench import model_flops
from jaxrobust.bench._plan_data import data_shape
from jaxrobust.bench._plan_programs import stock_convolutions, train_step_program
from jaxrobust.devices import device_mesh
from jaxrobust.experiment import PARTS, Experiment, Validation, use
from jaxrobust.training import train
from tests.objectives.mixed_perceptron import MixedPerceptron

BATCH, CLASSES, HIDDEN = 1000, 10, (512,) * 3  # the first layer is hardly any work
SIZES = (4, *HIDDEN, CLASSES)
HEAD = SIZES[-2] * SIZES[-1] / sum(a * b for a, b in itertools.pairwise(SIZES))
NAMES = sorted(PARTS["objective"].names)
UNIONS = ("eat", "max_norms", "avg_norms", "ramp", "msd")
STATED = re.compile(r"Cost: (?:`(?P<formula>[^`]+)`|(?P<number>\d+)) forward\s+units per image")


def stated(name, objective, norms):
    """The number in the objective's docstring."""
    found = STATED.search(inspect.getdoc(PARTS["objective"].names[name]))
    assert found is not None, f"{name} does not say what it costs"
    fields = {f.name: getattr(objective, f.name) for f in dataclasses.fields(objective)}
    names = fields | {"classes": CLASSES, "norms": norms, "head": HEAD, "round": round}
    names["__builtins__"] = {}
    return eval(found["formula"] or found["number"], names)


def network():
    return use("mlp", hidden=HIDDEN)


def experiment(name, helper=None, **settings):
    classes = 2 if name == "binary_trades" else CLASSES
    union = use("union", linf=0.1, l2=0.5, l1=3.0)
    return Experiment(
        name=name,
        data=use("synthetic", size=2, channels=1, train=2 * BATCH, test=8, num_classes=classes),
        model=use(MixedPerceptron) if name == "adaptive_smoothing" else network(),
        objective=use(name, **settings),
        threat=union if name in UNIONS else use("linf", eps=0.1),
        epochs=1,
        batch_size=BATCH,
        validation=Validation(size=0),
        teacher=network() if name == "lbgat" else None,
        helper=helper if name == "hat" else None,
    )


@pytest.fixture(scope="module")
def helper(tmp_path_factory):
    """A run of HAT's frozen network, as large as the one that is trained."""
    folder = tmp_path_factory.mktemp("helper")
    config = dataclasses.replace(experiment("standard"), batch_size=8)
    train(config, folder / "run", stop_at=1, quiet=True, devices=jax.devices()[:1])
    return str(folder / "run")


def counted(config):
    """Forward units per image: operations of the step, without what no output needs."""
    with stock_convolutions():
        mesh = device_mesh(jax.devices()[:1])
        step, arguments = train_step_program(config, data_shape(config), mesh)
        jaxpr = jax.make_jaxpr(step)(*arguments).jaxpr
    needed, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    model = config.build("model", num_classes=CLASSES)
    images = jnp.zeros((1, 2, 2, 1))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    unit = model_flops(jax.make_jaxpr(model.apply)(variables, images).jaxpr)
    return model_flops(needed) / (unit * BATCH)


@pytest.mark.parametrize("name", NAMES)
def test_the_stated_cost_is_the_counted_one(name, helper):
    kind = PARTS["objective"].names[name]
    settings = [{}] + [{"steps": 3}] * ("steps" in inspect.signature(kind).parameters)
    for changes in settings:
        expected = stated(name, kind(**changes), norms=3)
        assert counted(experiment(name, helper, **changes)) == pytest.approx(
            expected, rel=0.015, abs=0.1
        ), changes
