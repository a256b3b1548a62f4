"""SCORE's toy against the authors' code; the sandwich, and where it fails."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import losses, theory

MEASURES = {
    "KL": "kl",
    "JSsqrt": "js",  # rooted after the mean over the batch, as the authors do
    "LSE": "squared_error",
    "L1": "l1",
    "L2": "l2",
    "Linf": "linf",
}
METRICS = ("l1", "l2", "linf", "sqrt_js")
KINDS = {"C": ("label_shift", "C_value"), "S": ("score", "R_SCORE"), "M": ("madry", "R_Madry")}


def setting(golden, dtype):
    data = golden("at_public_toy")
    toy = theory.GaussianToy(
        prior=tuple(data[f"cfg.n{c}"] / (data["cfg.n0"] + data["cfg.n1"]) for c in (0, 1)),
        mean=tuple(data[f"cfg.mean{c}"] for c in (0, 1)),
        std=tuple(data[f"cfg.std{c}"] for c in (0, 1)),
    )
    layers = [
        {
            "kernel": jnp.asarray(data[f"net.model.{i}.weight"].T, dtype),
            "bias": jnp.asarray(data[f"net.model.{i}.bias"], dtype),
        }
        for i in (0, 2, 4)
    ]
    return data, toy, layers, jnp.asarray(data["x"], dtype)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_labels_and_network_are_the_authors(golden, dtype):
    with jax.enable_x64(dtype == np.float64):
        data, toy, layers, x = setting(golden, dtype)
        tolerance = 1e-12 if dtype == np.float64 else 1e-5
        for logits, name in (
            (toy.label_logits(x), "bayes"),
            (theory.toy_logits(layers, x), "net_out"),
        ):
            assert logits.dtype == dtype
            np.testing.assert_allclose(jax.nn.softmax(logits), data[name], atol=tolerance)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("risk", KINDS)
def test_risks_and_attacks_are_the_authors(golden, name, risk, dtype):
    kind, stored = KINDS[risk]
    with jax.enable_x64(dtype == np.float64):
        data, toy, layers, x = setting(golden, dtype)
        error = theory.local_error(
            kind,
            labels_fn=toy.label_logits,
            outputs_fn=lambda points: theory.toy_logits(layers, points),
            measure=MEASURES[name],
        )
        found = theory.ascend_on_line(
            error,
            x,
            jnp.asarray(data[f"{name}.{risk}_noise"], dtype),
            eps=data["cfg.epsilon"],
            steps=int(data["cfg.steps"]),
            step_size=data["cfg.alpha"],
        )
        exact = dtype == np.float64
        delta = jnp.asarray(data[f"{name}.{risk}_delta"], dtype)
        if exact:  # near a maximum float32 takes another sign, and ends at the same value
            np.testing.assert_allclose(found, delta, atol=1e-8)
        for reached in (delta, found):
            value = jnp.mean(error(x, x + reached))
            value = jnp.sqrt(value) if name == "JSsqrt" else value
            tolerance = 1e-8 if exact else 1e-4
            np.testing.assert_allclose(value, data[f"{name}.{stored}"], rtol=tolerance)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", MEASURES)
def test_distance_to_the_labels_is_the_authors(golden, name):
    data, toy, layers, x = setting(golden, np.float64)
    found = theory.toy_loss(
        layers, x, x, mode="standard", labels_fn=toy.label_logits, measure=MEASURES[name]
    )
    value = jnp.sqrt(found.mean()) if name == "JSsqrt" else found.mean()
    np.testing.assert_allclose(value, data[f"{name}.dist_net_bayes"], rtol=1e-8)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("mode", "risk"), [("pgd_at", "M"), ("pgd_at_consistent", "S")])
def test_training_losses_are_the_risks(golden, mode, risk):
    """The two adversarial modes train the authors' R_Madry and R_SCORE, attack included."""
    data, toy, layers, x = setting(golden, np.float64)
    loss = theory.toy_loss(
        layers,
        x,
        jnp.asarray(data[f"L1.{risk}_noise"]),
        mode=mode,
        labels_fn=toy.label_logits,
        measure="l1",
    )
    np.testing.assert_allclose(loss.mean(), data[f"L1.{KINDS[risk][1]}"], rtol=1e-8)


@pytest.mark.usefixtures("float64")
def test_trades_mode_and_its_published_form(golden):
    data, toy, layers, x = setting(golden, np.float64)
    start = jnp.asarray(data["KL.M_noise"])
    common = {"mode": "trades", "labels_fn": toy.label_logits, "lam": 2.0}

    def outputs(points):
        return theory.toy_logits(layers, points)

    clean, labels = outputs(x), toy.label_logits(x)
    delta = start
    for _ in range(10):
        grad = jax.grad(lambda d: losses.kl_divergence(clean, outputs(x + d)).sum())(delta)
        delta = jnp.clip(delta + 0.1 * jnp.sign(grad), -1, 1)
    natural, adv = losses.kl_divergence(labels, clean), outputs(x + delta)
    found = theory.toy_loss(layers, x, start, **common)
    np.testing.assert_allclose(found, natural + 2 * losses.kl_divergence(clean, adv), rtol=1e-8)
    published = theory.toy_loss(layers, x, start, trades_target="label", **common)
    np.testing.assert_allclose(
        published, natural + 2 * losses.kl_divergence(labels, adv), rtol=1e-8
    )


def test_samples_have_the_stated_classes(key):
    toy = theory.GaussianToy()
    x = toy.sample(key, 60_000)
    wide, narrow = np.asarray(x[:50_000, 0]), np.asarray(x[50_000:, 0])
    assert wide.mean() == pytest.approx(-1, abs=0.05)
    assert wide.std() == pytest.approx(2, abs=0.05)
    assert narrow.mean() == pytest.approx(1, abs=0.05)
    assert narrow.std() == pytest.approx(1, abs=0.05)


def random_networks(count, measure):
    """Classifiers far from and near the labels: random networks with logits of many sizes."""
    toy = theory.GaussianToy()
    x, moves = jnp.linspace(-5, 5, 31)[:, None], jnp.linspace(-1, 1, 41)[:, None]
    for seed in range(count):
        params = theory.init_toy_network(jax.random.key(seed), features=8)
        scale = 10.0 ** (seed % 4 - 1)

        def outputs(points, params=params, scale=scale):
            return scale * theory.toy_logits(params, points)

        yield theory.sandwich(
            x, moves, labels_fn=toy.label_logits, outputs_fn=outputs, measure=measure
        )


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("measure", METRICS)
def test_sandwich_holds_for_metrics(measure):
    for found in random_networks(12, measure):
        assert (found.madry <= found.score + found.constant + 1e-12).all()
        assert (found.score <= found.madry + found.constant + 1e-12).all()
        assert (found.slack >= -1e-12).all()


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("measure", METRICS)
@pytest.mark.parametrize("side", ["madry", "score"])
def test_no_counterexample_for_metrics(measure, side):
    found = theory.largest_violation(measure, side=side, resolution=30)
    assert float(found.violation) < 1e-7  # sqrt_js: the root of rounding


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("measure", ["kl", "rkl", "js", "squared_error", "l1_squared"])
@pytest.mark.parametrize("side", ["madry", "score"])
def test_sandwich_fails_for_what_is_not_a_metric(measure, side):
    found = theory.largest_violation(measure, side=side)
    assert float(found.violation) > 0.1
    # The same failure through the risks themselves: points 0 and 1, the ball is both.
    label = theory.two_class_logits(jnp.stack([found.label, found.moved_label]))
    output = theory.two_class_logits(jnp.stack([found.label, found.output]))

    def table(logits):
        return lambda points: jnp.where(points < 0.5, logits[0], logits[1])

    risks = theory.sandwich(
        jnp.zeros((1, 1)),
        jnp.array([[0.0], [1.0]]),
        labels_fn=table(label[:, None, None]),
        outputs_fn=table(output[:, None, None]),
        measure=measure,
    )
    slack = risks.slack[0 if side == "madry" else 1]
    assert float(slack) == pytest.approx(-float(found.violation), rel=1e-9)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("measure", ["kl", "squared_error", *METRICS])
def test_the_labels_themselves_have_no_score_risk_but_a_madry_risk(measure):
    labels = theory.GaussianToy().label_logits
    x, moves = jnp.linspace(-4, 4, 17)[:, None], jnp.linspace(-1, 1, 21)[:, None]
    found = theory.sandwich(x, moves, labels_fn=labels, outputs_fn=labels, measure=measure)
    np.testing.assert_allclose(found.score, 0, atol=1e-7)
    np.testing.assert_array_equal(found.madry, found.constant)
    assert float(found.constant.mean()) > 0.01


@pytest.mark.usefixtures("float64")
def test_pinsker_and_the_order_of_norms():
    logits = np.random.default_rng(0).normal(size=(2, 500, 5)) * 4
    assert (theory.pinsker_slack(*logits) >= -1e-12).all()
    assert (
        losses.distance("squared_error")(*logits) <= losses.distance("l1_squared")(*logits) + 1e-12
    ).all()
    near = theory.two_class_logits(0.5), theory.two_class_logits(0.501)
    assert float(theory.pinsker_slack(*near)) < 1e-8  # its constant cannot be improved


def test_toy_losses_have_gradients_and_one_trace(key):
    toy, params = theory.GaussianToy(), theory.init_toy_network(key, features=6)
    x = toy.sample(key, 24)
    for mode in theory.MODES:
        traces = []

        @jax.jit
        def step(params, eps, lam, mode=mode, traces=traces):
            traces.append(1)

            def loss(p):
                values = theory.toy_loss(
                    p, x, x / 100, mode=mode, labels_fn=toy.label_logits, eps=eps, lam=lam
                )
                return values.mean()

            return jax.grad(loss)(params)

        for eps in (0.5, 1.0):
            grads = jax.tree.leaves(step(params, eps, 2 * eps))
            assert all(np.isfinite(np.asarray(g)).all() for g in grads)
            assert any(np.abs(np.asarray(g)).max() > 1e-4 for g in grads)
        assert len(traces) == 1, mode


def test_bad_arguments():
    labels = theory.GaussianToy().label_logits
    x = jnp.zeros((1, 1))
    with pytest.raises(ValueError, match="mode 'PGDconsistent' is unknown; choose from"):
        theory.toy_loss([], x, x, mode="PGDconsistent", labels_fn=labels)
    with pytest.raises(ValueError, match="trades_target must be 'output' or 'label'"):
        theory.toy_loss([], x, x, mode="trades", labels_fn=labels, trades_target="x")
    with pytest.raises(ValueError, match="kind 'shift' is unknown; choose from"):
        theory.local_error("shift", labels_fn=labels, outputs_fn=labels)
    with pytest.raises(ValueError, match="side must be 'madry' or 'score'"):
        theory.largest_violation("kl", side="left")
