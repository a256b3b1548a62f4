"""What `use` takes, and how the arguments of parts are checked."""

import functools
import json
import re
from dataclasses import dataclass

import jax
import optax
import pytest
from flax import nnx

from jaxrobust import objectives
from jaxrobust.commands._identity import task_in, task_of
from jaxrobust.experiment import PARTS, Experiment, from_dict, override, to_dict, use
from jaxrobust.spec import Part, built, checked

BASE = {
    "name": "base",
    "data": use("digits"),
    "model": use("mlp"),
    "objective": use("trades"),
    "threat": use("linf", eps=0.1),
}


def with_part(field, spec):
    return getattr(Experiment(**{**BASE, field: spec}), field)


class Net(nnx.Module):
    def __init__(self, width: int = 4, *, num_classes: int, rngs: nnx.Rngs):
        raise AssertionError("a network is not made to be checked")


def takes_anything(value):
    """What its argument is, is known to nobody."""


@dataclass(frozen=True)
class Unregistered:
    """A threat that JAX does not know to be a pytree."""

    eps: float
    init = ascend = project = apply = len


class Threat:
    def make(self):
        """A method."""


def made_inside():
    def local():
        """A function of a function."""

    return local


REFUSED = {
    "lambda": (lambda: 0, "a lambda has no import path"),
    "local": (made_inside(), "made inside of a function"),
    "partial": (functools.partial(optax.sgd, 0.1), "give its function and arguments"),
    "method": (Threat().make, "is a method"),
    "function of a class": (Threat.make, "is a method"),
    "number": (3, "the target must be a name"),
    "instance": (
        Unregistered(eps=0.1),
        r"a class, got an instance of Unregistered; give the class, .* use\(Unregistered, ...\)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_named_is_refused(name):
    target, message = REFUSED[name]
    with pytest.raises(ValueError, match=message) as refused:
        use(target)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Net, r"model must be a part, such as use\(Net\), got Net itself"),
        ("mlp", r"""model must be a part, such as use\("name"\), got 'mlp'"""),
        (use("nets.Net"), "; your own is named 'nets:Net'"),
        (use("digit_cnn"), "; did you mean digits_cnn\\?"),
        (use(f"{__name__}:Nett"), "has no Nett; did you mean Net\\?"),
        (use("nowhere_at_all:Net"), "^model: nowhere_at_all:Net needs the module 'nowhere_at_all'"),
    ],
)
def test_what_stands_in_the_place_of_a_part_is_refused_with_what_to_write(model, message):
    with pytest.raises(ValueError, match=message):
        with_part("model", model)


def test_what_the_running_script_defines_is_refused():
    space = {"__name__": "__main__"}
    exec("def f(): pass", space)
    with pytest.raises(ValueError, match="move it to a module beside it"):
        use(space["f"])
    with pytest.raises(ValueError, match="move it to a module beside it"):
        with_part("model", use("__main__:f"))


def test_callables_have_their_exported_name_or_their_path():
    assert with_part("objective", use(objectives.trades, beta=3)) == use("trades", beta=3.0)
    assert with_part("objective", use("jaxrobust.objectives:trades")) == use("trades")
    chain = use("chain", use(optax.clip_by_global_norm, 1.0), use(optax.contrib.prodigy))
    expected = use("chain", use("clip_by_global_norm", max_norm=1.0), use("prodigy"))
    assert with_part("optimizer", chain) == expected
    assert use(Net).target == f"{__name__}:Net"


def test_a_network_of_another_library_is_checked_by_its_constructor():
    spec = use(Net, width=3)
    assert with_part("model", spec) == spec
    for bad, message in (
        (use(Net, wide=3), "model.wide is not an argument of .*:Net; choose from width"),
        (use(Net, width="x"), "model.width: Input should be a valid integer"),
    ):
        with pytest.raises(ValueError, match=message):
            with_part("model", bad)


def test_parts_are_stored_and_read_also_in_the_old_form():
    config = Experiment(
        **{
            **BASE,
            "threat": use("compose", use("spatial", 30, 3), use("linf", eps=0.1)),
            "learning_rate": use(
                "join_schedules",
                schedules=[use("linear_schedule", 0.0, 0.1, 9), use("constant_schedule", 0.1)],
                boundaries=[9],
            ),
        }
    )
    values = json.loads(json.dumps(to_dict(config)))
    assert values["threat"]["args"][1] == {"use": "linf", "kwargs": {"eps": 0.1}}
    assert values["model"] == {"use": "mlp"}
    assert from_dict(values) == config
    values["model"] = {"name": "mlp", "kwargs": {}}
    assert from_dict(values) == config
    assert task_in(values) == task_of(config)  # so kept rows of evaluations are found again


def test_the_rate_must_reach_the_optimizer():
    rates = []

    def update(learning_rate):
        rates.append(learning_rate)
        return optax.sgd(learning_rate)

    part = Part({"sgd": update, "chain": optax.chain}, ("init",), "optimizer", ("learning_rate",))
    spec = checked(use("chain", use("sgd"), use("chain", use("sgd"))), part, "optimizer")
    built(spec, part, "optimizer", learning_rate=0.5)
    assert rates == [0.5, 0.5]
    for without in (use("scale_by_adam"), use("sgd", learning_rate=0.1)):
        with pytest.raises(ValueError, match="takes no learning_rate from the experiment"):
            with_part("optimizer", without)


def test_all_of_optax_is_there():
    names = PARTS["optimizer"].names
    assert {"adamw", "lamb", "chain", "scale_by_adam", "muon", "add_decayed_weights"} <= set(names)
    assert not {"MultiSteps", "inject_hyperparams", "apply_updates"} & set(names)
    assert {"cosine_decay_schedule", "join_schedules"} <= set(PARTS["learning_rate"].names)


def test_arguments_without_a_type_are_what_json_gives_back():
    """A run that is read back is the one that was trained, also where nothing says its types."""
    spec = use(takes_anything, value=((1, 2.5), {"a": (True, None)}))
    config = Experiment(**{**BASE, "data": spec})
    assert config.data.kwargs == {"value": [[1, 2.5], {"a": [True, None]}]}
    read = from_dict(json.loads(json.dumps(to_dict(config))), trust=(__name__.split(".")[0],))
    assert read == config


MISTAKES = {
    "an argument too many": ("threat", use("linf", 0.1, 0.2), "takes at most 1 arguments"),
    "one twice": ("threat", use("linf", 0.1, eps=0.2), "threat.eps is given twice"),
    "of another field": ("threat", use("jaxrobust.objectives:trades"), "no threat: it has no init"),
    "nested": ("optimizer", use("chain", use("adamw", b1="x")), r"optimizer\.0\.b1: .*number"),
    "no JSON": ("data", use(takes_anything, value=jax), "must be a number, a text"),
    "no pytree": ("threat", use(Unregistered, 0.1), "threat: Unregistered is no pytree of numbers"),
    "two kinds of schedules": (
        "learning_rate",
        use("join_schedules", schedules=[use("cosine", peak=0.1)], boundaries=[]),
        "learning_rate: TypeError",
    ),
    "no module": ("model", use("nowhere.at:all"), "needs the module 'nowhere', which is not here"),
    "no path": ("model", use("a:b.c"), "is no import path"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_found_before_anything_runs(name):
    field, spec, message = MISTAKES[name]
    with pytest.raises(ValueError, match=message) as refused:
        with_part(field, spec)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("assignment", "shown"),
    [
        ("objective.steps=true", "objective.steps must be a number, got True"),
        ("threat.eps=true", "threat.eps must be a number, got True"),
        ("learning_rate.peak=false", "learning_rate.peak must be a number, got False"),
        ("model.hidden=[8, true]", "model.hidden.1 must be a number, got True"),
        ("optimizer.nesterov=1", "optimizer.nesterov must be true or false, got 1"),
        ("optimizer.nesterov=0.0", "optimizer.nesterov must be true or false, got 0.0"),
        ("epochs=true", "epochs must be a number, got True"),
        ("ema_decay=false", "ema_decay must be a number, got False"),
        ("validation.size=true", "validation.size must be a number, got True"),
        ("evaluation.spatial_grid=[5, 5, true]", "evaluation.spatial_grid.2 must be a number"),
    ],
)
def test_booleans_are_no_numbers_and_numbers_no_booleans(assignment, shown):
    """Both would be taken for the other: `steps=true` for one step."""
    with pytest.raises(ValueError, match=re.escape(shown)):
        override(Experiment(**BASE), [assignment])
    assert override(Experiment(**BASE), ["optimizer.nesterov=true"]).optimizer.kwargs["nesterov"]
