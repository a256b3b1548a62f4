"""The mixing network: the authors' values, training, and what it says about misfits."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrobust import mixing, models
from jaxrobust.models._torch_import import _select
from tests.models.quick import quick
from tests.models.test_torch_files import safetensors

NETWORK = models.mixing_network(std_channels=(3, 6), rob_channels=(3, 6), planes=(8, 10, 12))


def state_dict(data):
    """With the authors' keys: the network's and those of the norm of its output."""
    weights = {k.removeprefix("w/"): v for k, v in data.items() if k.startswith("w/")}
    return weights | {
        k.replace("outbn/", "bn."): v
        for k, v in data.items()
        if "outbn/run" in k and "train" not in k
    }


def inputs(data):
    features = [
        {f"stage{i}": jnp.asarray(data[f"feat{i}_{base}"].transpose(0, 2, 3, 1)) for i in (1, 2)}
        for base in ("std", "rob")
    ]
    return [jnp.asarray(data[f"logits_{base}"]) for base in ("std", "rob")], features


@pytest.mark.slow
def test_evaluation_of_the_authors_code(golden):
    data = golden("mixnet_public")
    variables = models.from_torch_state_dict(state_dict(data), NETWORK)
    gamma_fn = models.gamma_fn(NETWORK, variables, scale=2.0, bias=1.3)
    logits, features = inputs(data)
    cotangent = jnp.asarray(data["cotangent"])

    def value(logits, features):
        gamma = gamma_fn(*features)
        alpha = jax.nn.sigmoid(gamma) * 0.15 + 0.84
        out = mixing.mix(*logits, alpha=alpha, std_scale=2.0, rob_scale=1.0)
        return jnp.sum(out * cotangent), (gamma, alpha, out)

    run = quick(jax.value_and_grad(value, argnums=(0, 1), has_aux=True))
    (_, (gamma, alpha, out)), (grad_logits, grad_features) = run(logits, features)
    _, seen = NETWORK.apply(variables, *features, mutable=["intermediates"])
    np.testing.assert_allclose(seen["intermediates"]["raw"][0], data["eval/raw"], atol=1e-6)
    np.testing.assert_allclose(gamma, data["eval/gamma"], atol=2e-5)
    np.testing.assert_allclose(alpha, data["eval/alpha"], atol=2e-6)
    np.testing.assert_allclose(out, data["eval/mixed_logprob"], atol=2e-5)
    for i, base in enumerate(("std", "rob")):
        np.testing.assert_allclose(grad_logits[i], data[f"eval/grad_logits_{base}"], atol=1e-5)
        for name, grad in grad_features[i].items():
            expected = data[f"eval/grad_feat{name[-1]}_{base}"].transpose(0, 2, 3, 1)
            assert np.abs(expected).max() > 1e-4
            np.testing.assert_allclose(grad, expected, atol=1e-5)


def test_a_training_pass_of_the_authors_code(golden):
    data = golden("mixnet_public")
    variables = models.from_torch_state_dict(state_dict(data), NETWORK)
    logits, features = inputs(data)

    def run(variables, features):
        return NETWORK.apply(variables, *features, train=True, mutable=["batch_stats"])

    output, updates = quick(run)(variables, features)
    gamma = 2.0 * output + 0.4
    out = mixing.mix(*logits, alpha=jax.nn.sigmoid(gamma), std_scale=2.0)
    np.testing.assert_allclose(gamma, data["train/gamma"], atol=5e-5)
    np.testing.assert_allclose(out, data["train/mixed_logprob"], atol=2e-5)
    statistics = updates["batch_stats"]["output_norm"]
    for ours, theirs in (("mean", "mean"), ("var", "var")):
        expected = data[f"train/outbn_running_{theirs}_after"]
        np.testing.assert_allclose(statistics[ours], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("std", "rob", "planes"),
    [(512, 256, (512, 768, 1024)), (64, 64, (256, 512, 1024)), (512, 160, (576, 896, 1280))],
)
def test_published_planes(std, rob, planes):
    network = models.mixing_network(std_channels=(std, 2 * std), rob_channels=(rob, 2 * rob))
    assert network.planes == planes


def small_bases(width=4):
    model = models.digits_cnn(width=width)
    images = jnp.zeros((1, 8, 8, 1))
    return [models.logits_fn(model, model.init(jax.random.key(i), images)) for i in (5, 6)]


SMALL = models.mixing_network(std_channels=(4, 8), rob_channels=(4, 8), planes=(8, 8, 8))


def small_mix(**options):
    std, rob = small_bases()
    images = jax.random.uniform(jax.random.key(1), (16, 8, 8, 1))
    variables = SMALL.init(
        jax.random.key(2), *(base.with_features(images)[1] for base in (std, rob))
    )
    gamma = models.gamma_fn(SMALL, variables)
    return mixing.mixed(std, rob, gamma=gamma, **options), images


@pytest.mark.slow
def test_the_range_of_alpha_and_what_detaching_cuts():
    both, images = small_mix(alpha_scale=0.04, alpha_bias=0.96, std_scale=1.2, rob_scale=0.3)
    outputs = both.outputs(images)
    np.testing.assert_allclose(
        outputs.alpha, 0.96 + 0.04 * jax.nn.sigmoid(outputs.gamma), atol=1e-6
    )
    logits = (outputs.std_logits, outputs.rob_logits)
    expected = mixing.mix(*logits, alpha=outputs.alpha, std_scale=1.2, rob_scale=0.3)
    np.testing.assert_allclose(outputs.log_probs, expected, atol=2e-5)

    full, _ = small_mix()
    cut, _ = small_mix(detach=True)
    np.testing.assert_array_equal(full(images), cut(images))

    def gradient(mixed):
        return jax.grad(lambda x: mixed(x)[:, 0].sum())(images)

    def frozen(x):
        """What detaching means: the weights of the clean images, as constants."""
        return mixing.mixed(full.std, full.rob, alpha=full.outputs(images).alpha)(x)

    assert jnp.abs(gradient(full) - gradient(cut)).max() > 1e-4
    np.testing.assert_allclose(gradient(cut), gradient(frozen), atol=1e-6)


def test_training_separates_attacked_from_clean_images():
    """The composite loss, with the bases frozen: only the network's parameters move."""
    both, images = small_mix()
    noisy = jnp.clip(images + 0.3 * jnp.sign(images - 0.5), 0, 1)
    batch = jnp.concatenate([images, noisy])
    attacked = jnp.repeat(jnp.array([0, 1]), 16)
    labels = both.std(batch).argmax(-1)
    constants = mixing.ADAPTIVE_SMOOTHING["cifar10-edm"].loss
    optimizer = optax.adamw(1e-2, weight_decay=1e-5)

    def loss(params, statistics, bases):
        (std_logits, std), (rob_logits, rob) = (base.with_features(batch) for base in bases)
        variables = {"params": params, "batch_stats": statistics}
        output, updates = SMALL.apply(variables, std, rob, train=True, mutable=["batch_stats"])
        gamma = 2.0 * output + 0.4
        log_probs = mixing.mix(std_logits, rob_logits, alpha=jax.nn.sigmoid(gamma))
        weights = {"bce": constants.bce, "ce": constants.ce, "product": constants.product}
        each = mixing.mixing_loss(log_probs, gamma, labels, attacked, **weights)
        right = (gamma > 0) == (attacked == 1)
        return each.mean(), (updates["batch_stats"], right.mean())

    @jax.jit
    def step(params, statistics, state):
        run = jax.value_and_grad(loss, has_aux=True)
        (value, (statistics, right)), grads = run(params, statistics, (both.std, both.rob))
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), statistics, state, value, right

    params, statistics = (both.gamma.variables[k] for k in ("params", "batch_stats"))
    with jax.numpy_dtype_promotion("standard"):  # Optax's AdamW is not strict
        state = optimizer.init(params)
        values = []
        for _ in range(40):
            params, statistics, state, value, right = step(params, statistics, state)
            values.append(float(value))
    assert values[-1] < 0.3 * values[0]
    assert right > 0.95


def test_files_of_the_authors(golden, tmp_path):
    """{'model': ..., 'bn': ...}, or the parts of a whole mixed classifier."""
    weights = state_dict(golden("mixnet_public"))
    expected = models.from_torch_state_dict(weights, NETWORK)
    own = {k: v for k, v in weights.items() if not k.startswith("bn.")}
    norm = {k: v for k, v in weights.items() if k.startswith("bn.")}
    nested = {
        "model": {f"module.{k}": v for k, v in own.items()},
        "bn": {k.removeprefix("bn."): v for k, v in norm.items()},
    }
    flat = _select(nested, lambda x: isinstance(x, np.ndarray), None, "file")
    loaded = [models.from_torch_state_dict(flat, NETWORK)]
    path = tmp_path / "mixing.safetensors"
    safetensors(path, **{f"policy_net.{k}": v for k, v in own.items()}, **norm)
    loaded.append(models.load_torch_checkpoint(path, NETWORK))
    for variables in loaded:
        jax.tree.map(np.testing.assert_array_equal, variables, expected)


def test_misfits_are_named():
    with pytest.raises(ValueError, match="planes must be given"):
        models.mixing_network(std_channels=(16, 32), rob_channels=(64, 128))
    with pytest.raises(ValueError, match="two feature maps"):
        models.mixing_network(std_channels=(16,))
    maps = {"stage1": jnp.zeros((1, 8, 8, 4)), "stage2": jnp.zeros((1, 4, 4, 8))}
    for broken, message in (
        ({"stage1": maps["stage1"]}, "std_features must have 'stage2'"),
        (maps | {"stage1": jnp.zeros((1, 8, 8, 5))}, "must have 4 channels"),
        (maps | {"stage1": jnp.zeros((1, 6, 6, 4))}, "the same size"),
    ):
        with pytest.raises(ValueError, match=message):
            SMALL.init(jax.random.key(0), broken, maps)
    large = maps | {"stage2": jnp.zeros((1, 8, 8, 8))}
    with pytest.raises(ValueError, match="half the size"):
        SMALL.init(jax.random.key(0), large, large)
