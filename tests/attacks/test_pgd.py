"""PGD: laws that hold for any model, and the options that the papers' recipes need."""

from functools import partial

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxrobust import attacks, losses, models, threats

THREATS = {"linf": threats.linf(0.1), "l2": threats.l2(0.5), "l1": threats.l1(2.0)}
WEIGHTS = np.random.default_rng(0).standard_normal((5 * 4 * 2, 3)).astype(np.float32)


def linear(x):
    return x.reshape(len(x), -1) @ jnp.asarray(WEIGHTS)


def batch(key, size=6, shape=(5, 4, 2)):
    images = jax.random.uniform(key, (size, *shape), minval=0.35, maxval=0.65)
    return images, jnp.arange(size) % 3


def binary(x):
    """Two classes whose margin is linear: the worst point of every ball is known."""
    score = x.reshape(len(x), -1) @ jnp.asarray(WEIGHTS[:, :1])
    return jnp.concatenate([score, -score], 1)


def worst_increase(name, eps):
    """How much a ball of radius eps (box inactive) can change the score w.x."""
    w = np.abs(WEIGHTS[:, 0])
    return eps * {"linf": w.sum(), "l2": np.linalg.norm(w), "l1": w.max()}[name]


@pytest.mark.parametrize("name", THREATS)
def test_a_linear_model_is_attacked_to_its_known_worst_point(name, key):
    images, labels = batch(key)[0], jnp.zeros(6, int)
    eps = {"linf": 0.1, "l2": 0.2, "l1": 0.2}[name]
    # One value per l_1 step: equal steps on several never tell them apart.
    make = {"linf": threats.linf, "l2": threats.l2, "l1": partial(threats.l1, sparsity=0.01)}[name]
    attacked = attacks.pgd(
        binary,
        key,
        images,
        labels,
        threat=make(eps),
        loss=losses.margin,
        steps=60,
        step_size=eps / 4,
    )
    gained = attacked.loss - losses.margin(binary(images), labels)
    np.testing.assert_allclose(gained, 2 * worst_increase(name, eps), rtol=1e-4)


@pytest.mark.parametrize("keep", ["last", "best"])
@pytest.mark.parametrize("name", THREATS)
def test_zero_radius_returns_the_input_bit_for_bit(name, keep, key):
    images, labels = batch(key)
    zero = jax.tree.map(jnp.zeros_like, THREATS[name])
    attacked = attacks.pgd(
        linear, key, images, labels, threat=zero, steps=3, step_size=0.1, restarts=2, keep=keep
    )
    assert (attacked.images == images).all()


@pytest.mark.parametrize("kind", ["nan", "constant", "saturated", "infinite"])
@pytest.mark.parametrize("name", THREATS)
def test_images_stay_inside_for_any_logits(name, kind, key):
    def logits_fn(x):
        z = linear(x)
        return {
            "nan": z * jnp.nan,
            "constant": jnp.zeros_like(z),
            "saturated": z * 1e6,
            "infinite": z / 0.0,
        }[kind]

    images, labels = batch(key)
    attacked = attacks.pgd(
        logits_fn,
        key,
        images,
        labels,
        threat=THREATS[name],
        steps=4,
        step_size=0.5,
        restarts=2,
        keep="best",
    )
    delta = np.asarray(attacked.images - images, np.float64).reshape(6, -1)
    norm = {"linf": np.inf, "l2": 2, "l1": 1}[name]
    assert np.isfinite(attacked.images).all()
    assert attacked.images.min() >= 0
    assert attacked.images.max() <= 1
    eps = float(THREATS[name].eps)
    assert (np.linalg.norm(delta, norm, axis=1) <= eps * (1 + 1e-5) + 1e-6).all()


def run(key, **kwargs):
    images, labels = batch(key, 12)
    settings = {"threat": threats.linf(0.02), "steps": 5, "step_size": 0.006} | kwargs
    return attacks.pgd(linear, key, images, labels, **settings)


def test_success_and_loss_describe_the_returned_images(key):
    _images, labels = batch(key, 12)
    for kwargs in (
        {},
        {"keep": "best"},
        {"restarts": 3},
        {"momentum": 0.9},
        {"loss": losses.margin},
    ):
        attacked = run(key, **kwargs)
        logits = linear(attacked.images)
        np.testing.assert_array_equal(attacked.success, logits.argmax(1) != labels)
        loss = kwargs.get("loss", losses.cross_entropy)
        np.testing.assert_allclose(attacked.loss, loss(logits, labels), rtol=1e-4, atol=1e-5)


def test_more_restarts_and_keeping_the_best_never_lose(key):
    last, best, many = run(key), run(key, keep="best"), run(key, keep="best", restarts=4)
    assert (best.success >= last.success).all()
    assert (many.success >= best.success).all()
    same = best.success == last.success
    assert (best.loss >= last.loss - 1e-6)[same].all()


@pytest.mark.parametrize("which", range(4))
def test_every_restart_counts(which, key):
    def network(x):
        margin = 0.1 - jnp.sum(x - 0.5, (1, 2, 3))
        return jnp.stack([margin, -margin], -1)

    images, labels = jnp.full((1, 5, 4, 2), 0.5), jnp.array([0])
    start = jnp.zeros((4, *images.shape)).at[which].set(0.1)  # one of them is misclassified
    options = {"threat": threats.linf(0.1), "steps": 0, "step_size": 0.1, "restarts": 4}
    attacked = attacks.pgd(network, key, images, labels, start=start, **options)
    assert attacked.success
    np.testing.assert_array_equal(attacked.images, images + start[which])


def test_momentum_accumulates(key):
    plain, heavy = run(key, steps=3), run(key, steps=3, momentum=1.0)
    assert plain.images.shape == heavy.images.shape
    # On a linear model of one logit difference gradients keep their sign: no difference.
    images, _ = batch(key)
    kwargs = {
        "threat": threats.linf(0.1),
        "steps": 4,
        "step_size": 0.02,
        "start": jnp.zeros_like(images),
    }
    one = attacks.pgd(binary, key, images, jnp.zeros(6, int), **kwargs)
    two = attacks.pgd(binary, key, images, jnp.zeros(6, int), momentum=0.9, **kwargs)
    np.testing.assert_allclose(one.images, two.images, atol=1e-6)

    def wave(x):  # a gradient whose sign alternates with every step
        s = jnp.sin(x.mean((1, 2, 3)) * 157.0)[:, None]
        return jnp.concatenate([s, -s], 1)

    a = attacks.pgd(wave, key, images, jnp.zeros(6, int), **kwargs)
    b = attacks.pgd(wave, key, images, jnp.zeros(6, int), momentum=1.2, **kwargs)
    assert not np.allclose(a.images, b.images)


def test_kappa_counts_correct_iterates_before_the_last(key):
    """One pixel, a threshold: how many iterates are correct is known by counting."""

    def step_model(x):
        s = (0.5 - x[:, 0, 0, 0])[:, None] * 10
        return jnp.concatenate([s, -s], 1)  # class 0 below one half

    starts = jnp.array([0.0, 0.25, 0.44, 0.6])[:, None, None, None]
    attacked = attacks.pgd(
        step_model,
        key,
        starts,
        jnp.zeros(4, int),
        threat=threats.linf(1.0),
        steps=5,
        step_size=0.1,
        start=jnp.zeros_like(starts),
    )
    # Iterates of the second: .25 .35 .45 correct, .55 .65 wrong; the sixth, .75, is not counted.
    assert attacked.kappa.tolist() == [5, 3, 1, 0]
    assert attacked.success.tolist() == [False, True, True, True]


@pytest.mark.parametrize(("tau", "end"), [(0, 0.55), (1, 0.65), (2, 0.75), (9, 1.0)])
def test_stop_after_freezes_an_example(tau, end, key):
    def step_model(x):
        s = (0.5 - x[:, 0, 0, 0])[:, None] * 10
        return jnp.concatenate([s, -s], 1)

    x = jnp.full((1, 1, 1, 1), 0.25)
    attacked = attacks.pgd(
        step_model,
        key,
        x,
        jnp.zeros(1, int),
        threat=threats.linf(1.0),
        steps=12,
        step_size=0.1,
        start=jnp.zeros_like(x),
        stop_after=tau,
    )
    np.testing.assert_allclose(attacked.images.ravel(), [end], atol=1e-6)
    assert attacked.kappa.tolist() == [3]


def test_noise_belongs_to_the_example_not_to_the_batch(key):
    images, labels = batch(key, 8)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(8))

    def attack(index):
        return attacks.pgd(
            linear,
            keys[index],
            images[index],
            labels[index],
            threat=THREATS["linf"],
            steps=0,
            step_size=0.1,
        ).images

    whole = attack(jnp.arange(8))
    order = jnp.array([5, 2, 7])
    np.testing.assert_array_equal(attack(order), whole[order])
    one_key = attacks.pgd(
        linear, key, images, labels, threat=THREATS["linf"], steps=0, step_size=0.1
    )
    np.testing.assert_array_equal(one_key.images, whole)


def test_a_sweep_of_traced_settings_is_one_trace(key):
    images, labels = batch(key)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def attack(key, labels, eps, step_size, tau):
        return attacks.pgd(
            linear,
            key,
            images,
            labels,
            threat=threats.linf(eps),
            steps=3,
            step_size=step_size,
            stop_after=tau,
        )

    sizes = []
    for number, eps in enumerate((0.01, 0.05, 0.1)):
        out = attack(jax.random.fold_in(key, number), labels, eps, eps / 2, number)
        sizes.append(float(jnp.abs(out.images - images).max()))
    assert sizes == sorted(sizes)


def test_no_gradient_flows_out_and_none_through_the_loop(key):
    images, labels = batch(key)

    def loss(weights):
        def logits_fn(x):
            return x.reshape(len(x), -1) @ weights

        out = attacks.pgd(
            logits_fn, key, images, labels, threat=THREATS["linf"], steps=3, step_size=0.05
        )
        return losses.cross_entropy(logits_fn(out.images), labels).mean()

    weights = jnp.asarray(WEIGHTS)
    grad = jax.grad(loss)(weights)
    out = attacks.pgd(linear, key, images, labels, threat=THREATS["linf"], steps=3, step_size=0.05)
    outer = jax.grad(lambda w: losses.cross_entropy(out.images.reshape(6, -1) @ w, labels).mean())(
        weights
    )
    np.testing.assert_allclose(grad, outer, rtol=1e-5, atol=1e-7)
    # One dot for the forward, one for the input gradient: no tangents of the weights inside.
    loops = [
        e
        for e in jax.make_jaxpr(jax.grad(loss))(weights).eqns
        if e.primitive.name in ("while", "scan")
    ]
    assert len(loops) == 1
    assert str(loops[0].params).count("dot_general") == 2


def flax_linen(key):
    model = models.digits_cnn(batch_norm=True)
    variables = model.init(key, jnp.zeros((1, 8, 8, 1)))
    return lambda x: model.apply(variables, x)


def flax_nnx(key):
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(1, 4, (3, 3), rngs=rngs)
            self.norm = nnx.BatchNorm(4, rngs=rngs)
            self.dense = nnx.Linear(256, 10, rngs=rngs)

        def __call__(self, x):
            return self.dense(nnx.relu(self.norm(self.conv(x))).reshape(len(x), -1))

    net = Net(nnx.Rngs(0))
    net.eval()
    graph, state = nnx.split(net)
    return lambda x: nnx.merge(graph, state)(x)


def equinox_module(key):
    eqx = pytest.importorskip("equinox")
    net = eqx.nn.Sequential(
        [
            eqx.nn.Conv2d(1, 4, 3, key=key),
            eqx.nn.Lambda(jax.nn.relu),
            eqx.nn.Lambda(jnp.ravel),
            eqx.nn.Linear(4 * 36, 10, key=key),
        ]
    )
    return lambda x: jax.vmap(net)(x.transpose(0, 3, 1, 2))


def bare_function(key):
    weights = jax.random.normal(key, (64, 10))
    return lambda x: jnp.tanh(x.reshape(len(x), -1)) @ weights


@pytest.mark.parametrize("make", [flax_linen, flax_nnx, equinox_module, bare_function])
def test_any_logits_function_will_do(make, key):
    # The other libraries' layers broadcast ranks and promote dtypes; ours need not.
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        logits_fn = make(key)
        images = jax.random.uniform(key, (4, 8, 8, 1))
        labels = logits_fn(images).argmax(1)
        attack = jax.jit(
            lambda key: attacks.pgd(
                logits_fn, key, images, labels, threat=threats.linf(0.3), steps=5, step_size=0.1
            )
        )
        attacked = attack(key)
        assert attacked.loss.sum() > losses.cross_entropy(logits_fn(images), labels).sum()
        assert attacked.success.any()


def test_soft_labels_and_legacy_keys(key):
    images, labels = batch(key)
    soft = jax.nn.one_hot(labels, 3)
    hard = attacks.pgd(linear, key, images, labels, threat=THREATS["linf"], steps=3, step_size=0.05)
    out = attacks.pgd(
        linear,
        jax.random.key_data(key),
        images,
        soft,
        threat=THREATS["linf"],
        steps=3,
        step_size=0.05,
    )
    np.testing.assert_allclose(out.images, hard.images, atol=1e-6)


def test_composed_threats_and_unrolled_loops(key):
    images, labels = batch(key)
    both = threats.compose(THREATS["linf"], THREATS["l2"])
    kwargs = {"threat": both, "steps": 4, "step_size": (0.02, 0.2), "keep": "best"}
    rolled = attacks.pgd(linear, key, images, labels, **kwargs)
    unrolled = attacks.pgd(linear, key, images, labels, unroll=4, **kwargs)
    np.testing.assert_allclose(rolled.loss, unrolled.loss, rtol=1e-5)
    assert rolled.loss.sum() > losses.cross_entropy(linear(images), labels).sum()


def test_fgsm_is_one_step_of_full_length(key):
    images, labels = batch(key)
    attacked = attacks.fgsm(linear, key, images, labels, threat=THREATS["linf"])
    grad = jax.grad(lambda x: losses.cross_entropy(linear(x), labels).sum())(images)
    np.testing.assert_allclose(attacked.images, images + 0.1 * jnp.sign(grad), atol=1e-6)
    composed = threats.compose(THREATS["linf"])  # no radius of its own, but parts that step
    same = attacks.fgsm(linear, key, images, labels, threat=composed)
    np.testing.assert_allclose(same.images, attacked.images, atol=1e-6)


def test_clear_errors(key):
    images, labels = batch(key)
    kwargs = {"threat": THREATS["linf"], "step_size": 0.1}
    with pytest.raises(ValueError, match="steps must be an integer of at least 0"):
        attacks.pgd(linear, key, images, labels, steps=-1, **kwargs)
    with pytest.raises(ValueError, match="restarts must be"):
        attacks.pgd(linear, key, images, labels, steps=1, restarts=0, **kwargs)
    with pytest.raises(ValueError, match="keep must be 'last' or 'best', got 'worst'"):
        attacks.pgd(linear, key, images, labels, steps=1, keep="worst", **kwargs)
    with pytest.raises(ValueError, match="divide uint8 by 255"):
        attacks.pgd(linear, key, (images * 255).astype(jnp.uint8), labels, steps=1, **kwargs)
    with pytest.raises(AssertionError, match="same batch size"):
        attacks.pgd(linear, key, images, labels[:3], steps=1, **kwargs)
    with pytest.raises(AssertionError, match=r"images must be \[b, h, w, c\]"):
        attacks.pgd(linear, key, images[0], labels[0], steps=1, **kwargs)


def test_linen_dropout_and_train_mode_are_the_callers_business(key):
    """A stochastic logits function works; its noise is whatever it closes over."""

    class Noisy(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(3)(nn.Dropout(0.5, deterministic=False)(x.reshape(len(x), -1)))

    images, labels = batch(key)
    variables = Noisy().init({"params": key, "dropout": key}, images)

    def logits_fn(x):
        return Noisy().apply(variables, x, rngs={"dropout": key})

    with jax.numpy_rank_promotion("allow"):
        attacked = attacks.pgd(
            logits_fn, key, images, labels, threat=THREATS["linf"], steps=3, step_size=0.05
        )
    assert jnp.isfinite(attacked.loss).all()


def test_fgsm_with_a_radius_per_example(key):
    weights = jnp.array([[1.0, -1.0]])
    radii = jnp.array([0.1, 0.2, 0.3])
    images = jnp.full((3, 2, 2, 1), 0.5)
    attacked = attacks.fgsm(
        lambda x: x.mean((1, 2)) @ weights,
        key,
        images,
        jnp.zeros(3, jnp.int32),
        threat=threats.linf(radii),
    )
    np.testing.assert_allclose(attacked.images[:, 0, 0, 0], 0.5 - radii, atol=1e-6)
