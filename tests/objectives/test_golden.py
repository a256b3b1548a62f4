"""Every objective, attack and loss together, against one step of the authors' code."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrobust import bounds, objectives, threats
from jaxrobust.devices import device_mesh
from jaxrobust.networks import network
from jaxrobust.objectives import Batch
from jaxrobust.objectives._attack import initial
from jaxrobust.objectives._gair_trades import bounded_margin
from jaxrobust.training import StepSettings, TrainState, make_train_step
from tests.tiny import TinyNet, tiny_logits, tiny_params, tiny_variables

DTYPES = [np.float64, np.float32]
PUBLISHED = {
    "kl": "KL",
    "js": "JS",
    "sqrt_js": "JSsqrt",
    "sqrt_kl": "KLsqrt",
    "squared_error": "LSE",
    "l1_squared": "L1square",
    "l1": "1",
    "l2": "2",
    "linf": "inf",
}


class Case:
    """The stored values of one step, in one precision."""

    def __init__(self, golden, file, name, dtype=np.float64):
        self.data, self.name, self.dtype = golden(file), name, dtype
        self.params = jax.tree.map(lambda a: jnp.asarray(a, dtype), tiny_params(self.data))
        self.x = jnp.asarray(self.data["x_u8"].astype(dtype) / dtype(255))
        self.y = jnp.asarray(self.data["y"], jnp.int32)
        self.tolerance = 1e-8 if dtype == np.float64 else 1e-4

    def __getitem__(self, key):
        value = self.data.get(f"{self.name}.{key}", self.data.get(f"cfg.{key}"))
        assert value is not None, key
        return value.item() if value.ndim == 0 else value

    @property
    def attack(self):
        return {"steps": int(self["steps"]), "step_size": self["step"]}

    def logits_fn(self, params):
        mean, std = self.data.get("norm_mean", np.zeros(3)), self.data.get("norm_std", np.ones(3))
        mean, std = (jnp.asarray(v, self.dtype)[None, None, None] for v in (mean, std))
        return lambda x: tiny_logits(params, (x - mean) / std)[0]

    def check_grads(self, grads):
        for key, grad in grads.items():
            stored = self.data[f"{self.name}.grad.{key}"]
            np.testing.assert_allclose(
                grad, stored, rtol=self.tolerance, atol=self.tolerance * np.abs(stored).max()
            )


def starts(monkeypatch, *noises):
    """Attacks begin at the stored perturbations, in this order."""
    left = list(noises)

    def stored(key, images, threat, start):
        noise = jnp.asarray(left.pop(0), images.dtype)
        clipped = start in ("uniform", "gaussian_in_box")
        return jnp.clip(images + noise, 0, 1) - images if clipped else noise

    monkeypatch.setattr("jaxrobust.objectives._attack.initial", stored)


def step_is_published(case, objective, threat, labels=None, views=None):
    """Attack, loss and gradients of one step, the attack's images by name in `views`."""
    batch = Batch(case.x, case.y if labels is None else labels)
    logits_fn, key = case.logits_fn(case.params), jax.random.key(0)
    found = jax.jit(lambda batch: objective.inner(logits_fn, key, batch, threat))(batch)
    images = dict(found.images)
    for view, name in (views or {"adv": "x_adv"}).items():
        stored = np.asarray(case.x) + case[name] if name == "delta" else case[name]
        images[view] = jnp.asarray(stored, case.dtype)
        gap = np.abs(np.asarray(found.images[view]) - stored)
        if case.dtype == np.float64:
            assert gap.max() <= 1e-8
        elif case.name.endswith("l2"):  # l_2 divides by the norm of a tiny first gradient
            assert gap.max() <= 2e-4
        else:  # near the clean output a rare sign of a gradient is rounding
            assert (gap > 1e-5).mean() <= 2e-3
    weights = 1 if found.log_weights is None else jax.nn.softmax(found.log_weights) * len(case.y)

    def loss(params):
        logits_fn = case.logits_fn(params)
        logits = {
            name: logits_fn(case.x if view == "clean" else images[view])
            for name, view in objective.passes
        }
        losses = weights * objective.outer(logits, batch, found.extras)[0]
        return losses.mean(), losses

    (value, losses), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(case.params)
    if f"{case.name}.loss" in case.data:
        np.testing.assert_allclose(value, case["loss"], rtol=case.tolerance)
    else:
        np.testing.assert_allclose(
            losses, case["loss_per_example"], rtol=case.tolerance, atol=case.tolerance
        )
    case.check_grads(grads)
    return found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "name",
    [
        "lse_linf",
        "lse_linf_ls_clip",
        "lse_l2",
        "kl_linf",
        "kl_l2",
        "cutmix_lse_linf",
        "cutmix_kl_linf",
    ],
)
def test_score_with_extra_data(golden, monkeypatch, name, dtype):
    with jax.enable_x64(dtype == np.float64):
        case = Case(golden, "at_public_score", name, dtype)
        starts(monkeypatch, case["noise"])
        linf, soft = not name.endswith("l2"), name.startswith("cutmix")
        options = {
            **case.attack,
            "beta": case["beta"],
            "label_smoothing": case["label_smoothing"],
            "start": "uniform" if linf else "gaussian",
            "attack_target": "label" if soft else "clean",
        }
        if "lse" in name:
            objective = objectives.score(**options, clip=case["clip_value"])
        else:
            objective = objectives.trades(**options, attack_statistics="batch")
        threat = (threats.linf if linf else threats.l2)(case["eps"])
        labels = jnp.asarray(case.data["soft_labels"], dtype) if soft else None
        step_is_published(case, objective, threat, labels)


@pytest.mark.parametrize("dtype", [np.float64, pytest.param(np.float32, marks=pytest.mark.slow)])
@pytest.mark.parametrize("mode", ["pgd", "trades"])
@pytest.mark.parametrize("distance", PUBLISHED)
def test_every_distance_without_extra_data(golden, monkeypatch, distance, mode, dtype):
    with jax.enable_x64(dtype == np.float64):
        file = "at_public_divs_pgd" if mode == "pgd" else "at_public_divs"
        case = Case(golden, file, f"{mode}_{PUBLISHED[distance]}", dtype)
        starts(monkeypatch, case["noise"])
        if mode == "pgd":
            objective = objectives.distance_pgd_at(distance=distance, **case.attack)
        else:
            objective = objectives.distance_trades(
                distance=distance, beta=case["TRADESlambda"], **case.attack
            )
        step_is_published(case, objective, threats.linf(case["eps"]), views={"adv": "delta"})


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "name", ["pgd_LSE_clip", "trades_LSE_clip", "trades_LSE_clip_robustonly_ls"]
)
def test_clipped_distances(golden, monkeypatch, name):
    file = "at_public_divs_pgd" if name.startswith("pgd") else "at_public_divs"
    case = Case(golden, file, name)
    starts(monkeypatch, case["noise"])
    options = {
        "clip_loss": case["clip_loss"],
        "label_smoothing": case["label_smoothing"],
        **case.attack,
    }
    if name.startswith("pgd"):
        objective = objectives.distance_pgd_at(**options)
    else:
        objective = objectives.distance_trades(
            **options, beta=case["TRADESlambda"], clip_clean=not case["not_clip_clean"]
        )
    if case["label_smoothing"]:
        case.tolerance = 1e-6  # the published code rounds smoothed labels to float32
    step_is_published(case, objective, threats.linf(case["eps"]), views={"adv": "delta"})


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", PUBLISHED)
def test_clip_bounds(golden, name):
    from jaxrobust.losses import clip_bound

    stored = golden("at_public_divs")[f"dist.{PUBLISHED[name]}.clip_bound"]
    np.testing.assert_allclose(clip_bound(name, 0.3, 10), stored, rtol=1e-12)
    assert float(clip_bound(name, 0.0, 10)) == 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["burnin", "e60_lm1", "e100_l0", "e60_l1_sigmoid", "e60_discrete"])
def test_gairat(golden, monkeypatch, name, dtype):
    with jax.enable_x64(dtype == np.float64):
        case = Case(golden, "at_public_gairat", name, dtype)
        starts(monkeypatch, case["noise"])
        kind = {"e60_l1_sigmoid": "sigmoid", "e60_discrete": "discrete"}.get(name, "tanh")
        objective = objectives.gairat(lam=case["Lambda"], kind=kind, **case.attack)
        found = step_is_published(case, objective, threats.linf(case["eps"]))
        np.testing.assert_array_equal(found.extras["kappa"], case["kappa"])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["lam0", "lam3"])
def test_gair_trades(golden, monkeypatch, name, dtype):
    with jax.enable_x64(dtype == np.float64):
        case = Case(golden, "at_public_gairrst", name, dtype)
        starts(monkeypatch, case["noise"], case["noise_cw"])
        objective = objectives.gair_trades(lam=case["Lambda"], beta=case["beta"], **case.attack)
        views = {"adv": "x_adv", "adv_margin": "x_adv_cw"}
        found = step_is_published(case, objective, threats.linf(case["eps"]), views=views)
        np.testing.assert_array_equal(found.extras["kappa"], case["kappa"])


@pytest.mark.usefixtures("float64")
def test_gair_trades_with_a_large_shift_is_trades(golden, monkeypatch):
    case = Case(golden, "at_public_gairrst", "lam100_plain")
    starts(monkeypatch, case["noise"], np.zeros_like(case["noise"]))
    objective = objectives.gair_trades(lam=case["Lambda"], beta=case["beta"], **case.attack)
    step_is_published(case, objective, threats.linf(case["eps"]))


@pytest.mark.parametrize("start", ["gaussian", "gaussian_in_box"])
def test_gaussian_starts_have_a_deviation_of_a_thousandth(start):
    images = jnp.full((50, 4, 4, 1), 0.5)
    noise = initial(jax.random.key(0), images, threats.linf(0.1), start)
    assert noise.std() == pytest.approx(0.001, rel=0.1)
    assert abs(noise.mean()) < 1e-4


def test_gairat_without_weights_weighs_equally():
    batch = Batch(jnp.full((4, 2, 2, 1), 0.5), jnp.arange(4) % 3)
    objective, threat = objectives.gairat(lam=jnp.inf, steps=2), threats.linf(0.1)
    views = objective.inner(lambda x: x.reshape(4, -1)[:, :3], jax.random.key(0), batch, threat)
    assert (views.log_weights == 0).all()


def test_the_margin_that_gair_trades_attacks_ends_at_fifty():
    logits = jnp.array([[100.0, 0.0], [49.5, 0.0], [-70.0, 0.0]])
    found = bounded_margin(logits, jnp.array([1, 1, 1]))
    np.testing.assert_array_equal(found, [50, 49.5, -70])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["tau0_burnin", "tauN_gair"])
def test_gair_fat_in_its_corrected_form(golden, monkeypatch, name):
    case = Case(golden, "at_public_fat", name)
    starts(monkeypatch, case["noise"])
    objective = objectives.gair_fat(lam=case["Lambda"], tau=case["tau"], **case.attack)
    batch = Batch(case.x, case.y)
    logits_fn = case.logits_fn(case.params)
    found = objective.inner(logits_fn, jax.random.key(0), batch, threats.linf(case["eps"]))
    order = case["fixed.perm"]
    np.testing.assert_array_equal(case.y[order], case["fixed.out_target"])
    np.testing.assert_array_equal(found.extras["kappa"][order], case["fixed.kappa"])
    np.testing.assert_allclose(found.images["adv"][order], case["x_adv"], atol=1e-8, rtol=0)
    weights = jax.nn.softmax(found.log_weights) * len(order)
    if case["Lambda"] < np.inf:
        np.testing.assert_allclose(weights[order], case["fixed.weights"], rtol=1e-8)

    def loss(params):
        logits = {"adv": case.logits_fn(params)(found.images["adv"])}
        return (weights * objective.outer(logits, batch, found.extras)[0]).mean()

    value, grads = jax.value_and_grad(loss)(case.params)
    np.testing.assert_allclose(value, case["fixed.loss"], rtol=1e-8)
    for key, grad in grads.items():
        np.testing.assert_allclose(grad, case.data[f"{name}.fixed.grad.{key}"], atol=1e-8)


@pytest.mark.parametrize("dtype", DTYPES)
def test_mart(golden, monkeypatch, dtype):
    with jax.enable_x64(dtype == np.float64):
        case = Case(golden, "at_public_core", "mart", dtype)
        starts(monkeypatch, case["noise"])
        objective = objectives.mart(beta=case["beta"], **case.attack)
        step_is_published(case, objective, threats.linf(case["eps"]))


class NormalisedNet(TinyNet):
    """Inputs are normalised first, as without extra data."""

    mean: tuple = (0.0, 0.0, 0.0)
    std: tuple = (1.0, 1.0, 1.0)

    def __call__(self, images, *, train=False):
        mean, std = (jnp.asarray(v, images.dtype)[None, None, None] for v in (self.mean, self.std))
        return super().__call__((images - mean) / std, train=train)


BATCH_NORM = {
    "bn_kl_linf": ("score", objectives.trades, {"attack_statistics": "batch", "start": "uniform"}),
    "bn_lse_linf": ("score", objectives.score, {}),
    "bn_e60_lm1": ("gairat", objectives.gairat, {"lam": -1.0}),
    "bn_pgd_LSE": ("divs_pgd", objectives.distance_pgd_at, {}),
    "bn_trades_LSE": ("divs_pgd", objectives.distance_trades, {}),
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", BATCH_NORM)
def test_a_whole_train_step_with_batch_norm(golden, monkeypatch, name):
    """Modes of BatchNorm in attack and outer passes, their order, and the running statistics."""
    file, make, options = BATCH_NORM[name]
    case = Case(golden, f"at_public_{file}", name)
    starts(monkeypatch, case["noise"])
    for key, stored in (
        ("beta", "beta"),
        ("beta", "TRADESlambda"),
        ("label_smoothing", "label_smoothing"),
    ):
        known = f"{name}.{stored}" in case.data or f"cfg.{stored}" in case.data
        if known and key in make.__dataclass_fields__:
            options = {**options, key: case[stored]}
    objective = make(**case.attack, **options)
    model = TinyNet()
    if "norm_mean" in case.data:
        model = NormalisedNet(
            mean=tuple(case.data["norm_mean"].tolist()), std=tuple(case.data["norm_std"].tolist())
        )
    variables, optimizer = tiny_variables(case.data), optax.sgd(1.0)
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        opt_state=optimizer.init(variables["params"]),
        ema_params=None,
        key=jax.random.key_data(jax.random.key(0)),
        **variables,
    )
    before = jax.device_get(state)
    step = make_train_step(StepSettings(optimizer), device_mesh(jax.devices()[:1]))
    order = jnp.arange(len(case.y), dtype=jnp.int32)[None]
    parts = objective, threats.linf(case["eps"]), network(model)
    after, metrics = step(state, case.data["x_u8"], case.data["y"], order, *parts)
    loss = case.data.get(f"{name}.loss", case.data.get(f"{name}.loss_per_example")).mean()
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-8)
    np.testing.assert_allclose(after.batch_stats["bn"]["mean"], case["bn_mean_after"], atol=1e-8)
    np.testing.assert_allclose(after.batch_stats["bn"]["var"], case["bn_var_after"], atol=1e-8)
    grads = jax.tree.map(lambda a, b: a - np.asarray(b), before.params, after.params)
    for layer, leaves in grads.items():
        for leaf, grad in leaves.items():
            np.testing.assert_allclose(grad, case[f"grad.{layer}_{leaf}"], atol=1e-8)


def test_an_infinite_distance_is_refused():
    with pytest.raises(ValueError, match="distance 'rkl' is infinite against a one-hot label"):
        objectives.distance_trades(distance="rkl")
    with pytest.raises(ValueError, match="'chebyshev' is unknown; choose from"):
        objectives.distance_pgd_at(distance="chebyshev")
    assert objectives.distance_trades(distance="rkl", label_smoothing=0.1).distance == "rkl"


ALL = {
    name: value()
    for name, value in vars(objectives).items()
    if hasattr(value, "__dataclass_fields__")
    and hasattr(value, "outer")
    and name != "adaptive_smoothing"  # its passes give more than logits; tests/training/test_mixing
}
OF_NORMS = ("eat", "max_norms", "avg_norms", "msd", "ramp")


def ball(name, eps):
    """A threat that the objective takes, with one radius in every norm."""
    return threats.union(linf=eps, l2=eps, l1=eps) if name in OF_NORMS else threats.linf(eps)


def stated(name, objective, batch, classes, helper=None):
    """The state before the first step, as the last arguments of `inner` and `outer`."""
    if not hasattr(objective, "init_state"):
        return ()
    sizes = objectives.Sizes(classes, batch.images.shape[1:], len(batch.images), ball(name, 0.1))
    known = {"key": jax.random.key(2), "devices": objectives.Devices()}
    networks = dict.fromkeys(getattr(objective, "networks", ()), helper)
    return ({**objective.init_state(sizes), **known, **networks},)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", ALL)
def test_gradients_are_finite_at_extreme_logits(name, dtype):
    rows = np.stack([np.eye(10)[1] * 1e4, np.eye(10)[1] * -1e4, np.zeros(10), np.full(10, 1e4)])
    classes = 2 if name == "binary_trades" else 10
    extreme = jnp.asarray(rows[:, :classes], dtype)
    objective, labels = ALL[name], jnp.arange(4) % classes
    batch, extras = Batch(jnp.zeros((4, 1, 1, 1)), labels), {"kappa": jnp.array([0, 3, 7, 10])}
    extras |= {"helper_labels": labels[::-1], "targets": jnp.full((4, classes), 1 / classes)}
    state = stated(name, objective, batch, classes)
    for other in (extreme, extreme[::-1]):
        names = [p.name for p in objective.passes]
        logits = {n: (extreme if i % 2 == 0 else other) for i, n in enumerate(names)}
        if hasattr(objective, "bound"):
            logits[objective.bound.name] = other
        grads = jax.grad(lambda z: objective.outer(z, batch, extras, *state)[0].sum())(logits)
        for grad in jax.tree.leaves(grads):
            assert np.isfinite(np.asarray(grad, np.float32)).all()


@pytest.mark.parametrize("name", [name for name in ALL if name != "standard"])
def test_one_trace_over_a_whole_schedule(name):
    """Every value that may change does, and eps with it: one compiled program."""
    objective = ALL[name]
    leaves, structure = jax.tree.flatten(objective)

    traces = []

    @jax.jit
    def step(weights, objective, threat):
        traces.append(name)

        def logits_fn(x):
            return x.reshape(len(x), -1) @ weights

        fn = objectives.Stateful(lambda x, s: (logits_fn(x), s), {"count": jnp.zeros(())})
        batch = Batch(jnp.full((4, 2, 2, 1), 0.5), jnp.arange(4) % weights.shape[1])
        fn = fn if objective.attack_statistics == "update" else logits_fn
        state = stated(name, objective, batch, weights.shape[1], logits_fn)
        views = objective.inner(fn, jax.random.key(1), batch, threat, *state)
        images = {"clean": batch.images, **views.images}
        logits = {n: logits_fn(images[v]) for n, v in objective.passes}
        if bound := getattr(objective, "bound", None):
            box = {"lower": images[bound.lower], "upper": images[bound.upper]}
            logits[bound.name] = bounds.margins(
                logits_fn, batch.images, batch.labels, method=bound.method, **box
            )
        return objective.outer(logits, batch, views.extras, *state)[0].sum()

    weights = jax.random.normal(jax.random.key(0), (4, 2 if name == "binary_trades" else 10))
    for scale, eps in ((1.0, 0.01), (0.25, 0.05), (0.5, 0.1)):
        values = [jnp.float32(float(leaf) * scale) for leaf in leaves]
        changed = jax.tree.unflatten(structure, values)
        assert np.isfinite(float(step(weights, changed, ball(name, jnp.float32(eps)))))
    assert len(traces) == 1
