"""Schedules against the authors' code, epoch by epoch."""

import jax
import numpy as np
import pytest

from jaxrobust import schedules

pytestmark = pytest.mark.usefixtures("float64")
STEPS = 7


def by_epoch(make, epochs):
    """The value at the first and at the last step of every epoch, which must agree."""
    schedule = jax.jit(jax.vmap(make(STEPS, epochs)))
    first, last = (np.asarray(schedule(np.arange(epochs) * STEPS + k)) for k in (0, STEPS - 1))
    np.testing.assert_array_equal(first, last)
    return first


def test_one_cycle_learning_rate_and_momentum(golden):
    data = golden("at_public_sched")
    epochs, peak = int(data["cosinew.epochs"]), float(data["cosinew.max_lr"])
    rate = by_epoch(schedules.one_cycle(peak=peak), epochs)
    np.testing.assert_allclose(rate, data["cosinew.lr"], rtol=1e-8)
    momentum = by_epoch(schedules.one_cycle(peak=0.85, start=0.95, end=0.95), epochs)
    np.testing.assert_allclose(momentum, data["cosinew.momentum"], rtol=1e-8)


# Epochs are counted from 0 here and from 1 in the authors' code.
STAGED = {
    "trades_cifar.lr_epoch1_110": (0.1, [(74, 0.1), (89, 0.1), (99, 0.1)]),
    "trades_mnist.lr_epoch1_110": (0.01, [(54, 0.1), (74, 0.1), (89, 0.1)]),
}


@pytest.mark.parametrize("name", STAGED)
def test_piecewise_learning_rates(golden, name):
    value, drops = STAGED[name]
    stored = golden("at_public_sched")[name]
    found = by_epoch(schedules.piecewise(value=value, drops=drops), len(stored))
    np.testing.assert_allclose(found, stored, rtol=1e-8)


def test_gairat_rates_shifts_and_patience(golden):
    data = golden("at_public_gairat")
    rate = schedules.stages(values=[(0, 0.1), (59, 0.01), (89, 0.001), (109, 0.0005)])
    np.testing.assert_allclose(by_epoch(rate, 120), data["sched.lr_epochs120"], rtol=1e-8)
    rate = schedules.piecewise(value=0.1, drops=[(29, 0.1), (59, 0.1)])
    np.testing.assert_allclose(by_epoch(rate, 100), data["sched.lr_epochs100"], rtol=1e-8)
    lam = schedules.stages(values=[(0, np.inf), (59, -1.0)])
    np.testing.assert_array_equal(by_epoch(lam, 120), data["sched.Lambda_fixed"])
    lam = schedules.stages(values=[(0, np.inf), (29, -1.0)])
    np.testing.assert_array_equal(by_epoch(lam, 100), data["sched.Lambda_resnet_fixed"])
    tau = schedules.stages(values=[(0, 0), (40, 3), (70, 6)])
    np.testing.assert_array_equal(by_epoch(tau, 120), golden("at_public_fat")["sched.tau"])


def test_gair_rst_rate_and_shift(golden):
    data = golden("at_public_sched")
    rate = by_epoch(schedules.cosine(peak=0.1, per="epoch"), 200)
    np.testing.assert_allclose(rate, data["gairrst.lr_epoch1_200"], rtol=1e-8)
    lam = by_epoch(schedules.stages(values=[(0, 100.0), (99, 3.0)]), 200)
    np.testing.assert_array_equal(lam, data["gairrst.Lambda_epoch1_200"])


def test_linear_shift_after_a_burn_in(golden):
    """The authors' ramp starts at epoch 1 and is skipped until epoch 60."""
    stored = golden("at_public_gairat")["sched.Lambda_linear_max3"]
    ramp = schedules.linear(start=3.0, end=-1.0, from_epoch=-1, to_epoch=119)(1, 120)
    np.testing.assert_allclose(jax.vmap(ramp)(np.arange(59, 120)), stored[59:], rtol=1e-6)


@pytest.mark.parametrize(
    "values", [[], [(1, 0.1)], [(0, 1.0), (0, 2.0)], [(0, 1.0), (5, 1.0), (3, 1.0)]]
)
def test_stages_must_start_at_zero_and_rise(values):
    with pytest.raises(
        ValueError,
        match="values must be \\(epoch, value\\) pairs from epoch 0 on|epochs of values must rise",
    ):
        schedules.stages(values=values)


RAMPS = {
    "smooth": lambda a: schedules.smooth(start=a[2], end=a[3], from_epoch=a[0], to_epoch=a[1]),
    "smooth_from_zero": lambda a: schedules.smooth(start=a[2], end=a[3], from_epoch=a[0], to_epoch=a[1]),
    "linear": lambda a: schedules.linear(start=a[2], end=a[3], from_epoch=a[0], to_epoch=a[1]),
    "kappa": lambda a: schedules.linear(start=a[2], end=a[3], from_epoch=a[0], to_epoch=a[1]),
    "step": lambda a: schedules.stairs(start=a[2], end=a[3], from_epoch=a[0], to_epoch=a[1], every=a[4]),
}  # fmt: skip


@pytest.mark.parametrize("name", RAMPS)
def test_ramps_of_certified_training(golden, name):
    data = golden("bounds_train_plain")
    args = [float(v) for v in data[f"schedule.{name}.args"]]
    schedule = jax.jit(jax.vmap(RAMPS[name](args)(1, 10_000)))
    found = schedule(data[f"schedule.{name}.step"])
    np.testing.assert_allclose(found, data[f"schedule.{name}.value"], rtol=1e-9, atol=1e-15)
