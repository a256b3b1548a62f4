"""A schedule may not reach what the part itself would refuse."""

import numpy as np
import pytest

from jaxrobust.experiment import Experiment, check_scheduled, use
from jaxrobust.inputs import InputError
from jaxrobust.training import train

RISING = {"from_epoch": 0, "to_epoch": 2}


def experiment(path, schedule, objective="trades"):
    return Experiment(
        name="scheduled",
        data=use("synthetic", size=4, channels=1, num_classes=3, train=24, test=12),
        model=use("mlp", hidden=(4,)),
        objective=use(objective),
        threat=use("linf", eps=0.1),
        transform=use("spatial", max_degrees=5, max_shift_px=0),
        schedules={path: schedule},
        epochs=2,
        batch_size=8,
    )


@pytest.mark.parametrize(
    ("path", "schedule", "shown"),
    [
        ("threat.eps", use("constant", value=8.0), "reaches 8: .*at most 1"),
        ("threat.eps", use("constant", value=-0.1), r"reaches -0\.1: .*at least 0"),
        (
            "threat.eps",
            use("linear", start=0.0, end=8.0, **RISING),
            "threat.eps.*reaches .*: .*eps",
        ),
        ("objective.beta", use("constant", value=-3.0), "reaches -3: beta must be"),
        ("objective.step_size", use("constant", value=-0.1), "step_size must be"),
        ("transform.max_degrees", use("constant", value=200.0), "reaches 200: max_degrees"),
        ("awp", use("constant", value=-0.01), r"reaches -0\.01: awp must be"),
        ("optimizer.momentum", use("constant", value=1.5), r"optimizer\.momentum must be in"),
    ],
)
def test_a_value_out_of_range_is_refused(path, schedule, shown, tmp_path):
    with pytest.raises(InputError, match=shown) as caught:
        check_scheduled(experiment(path, schedule), 2)
    assert path in str(caught.value)
    if path == "threat.eps":
        with pytest.raises(InputError, match="reaches"):
            train(experiment(path, schedule), tmp_path / "run", quiet=True)
        assert not (tmp_path / "run").exists()


def test_values_in_range_pass():
    check_scheduled(experiment("threat.eps", use("linear", start=0.0, end=1.0, **RISING)), 2)
    burn_in = experiment("objective.lam", use("constant", value=np.inf), "gairat")
    check_scheduled(burn_in, 2)
    check_scheduled(experiment("awp", use("constant", value=0.005)), 2)
