"""Mixed classifiers as logits functions: pytrees, attacked and evaluated like any other."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import evaluation, mixing, models, threats
from tests.test_structure import LIGHT, loaded

IMAGES = jax.random.uniform(jax.random.key(3), (12, 8, 8, 1))
LABELS = jnp.arange(12) % 10


@pytest.fixture(scope="module")
def bases():
    model = models.mlp(hidden=(16,))
    keys = jax.random.split(jax.random.key(0))
    return [models.logits_fn(model, model.init(key, IMAGES[:1])) for key in keys]


def test_it_is_the_mix_of_the_bases(bases):
    std, rob = bases
    settings = {"alpha": 0.7, "std_scale": 1.2, "rob_scale": 0.3}
    both = mixing.mixed(std, rob, **settings)
    expected = mixing.mix(std(IMAGES), rob(IMAGES), **settings)
    np.testing.assert_allclose(both(IMAGES), expected, rtol=1e-6)
    outputs = both.outputs(IMAGES)
    assert outputs.gamma is None
    np.testing.assert_array_equal(outputs.std_logits, std(IMAGES))
    np.testing.assert_array_equal(outputs.rob_logits, rob(IMAGES))


def test_new_weights_and_parameters_do_not_recompile(bases):
    std, rob = bases
    traces = []

    @jax.jit
    def run(mixed, images):
        traces.append(1)
        return mixed(images)

    results = [
        run(mixing.mixed(std, rob, alpha=0.2), IMAGES),
        run(mixing.mixed(std, rob, alpha=jnp.float32(0.9), rob_scale=0.3), IMAGES),
        run(mixing.mixed(rob, std, alpha=0.9), IMAGES),
    ]
    assert len(traces) == 1
    assert (results[0] != results[1]).any()
    nuts = [
        mixing.mixed_nuts(std, rob, **mixing.MIXED_NUTS[n].options) for n in ("cifar10", "cifar100")
    ]
    for each in nuts:
        run(each, IMAGES)
        run(each.surrogate, IMAGES)
    assert len(traces) == 3


def test_plain_functions_are_taken():
    def base(images):
        return images.reshape(len(images), -1)[:, :10]

    both = mixing.mixed(base, base, alpha=0.5)
    np.testing.assert_allclose(jax.jit(lambda m, x: m(x))(both, IMAGES), both(IMAGES), rtol=1e-6)
    np.testing.assert_allclose(both(IMAGES), jax.nn.log_softmax(base(IMAGES)), rtol=1e-5)


def test_nuts_and_its_surrogate(bases):
    std, rob = bases
    preset = mixing.MIXED_NUTS["cifar10"]
    nuts = mixing.mixed_nuts(std, rob, **preset.options)
    map_ = {k: preset.options[k] for k in "spc"}
    expected = mixing.mixednuts_mix(std(IMAGES), rob(IMAGES), alpha=preset.alpha, **map_)
    np.testing.assert_allclose(nuts(IMAGES), expected, rtol=1e-6)
    surrogate = mixing.mixednuts_surrogate(
        std(IMAGES), rob(IMAGES), alpha=preset.surrogate_alpha, **map_
    )
    np.testing.assert_allclose(nuts.surrogate(IMAGES), surrogate, rtol=1e-6)


def test_evaluated_like_any_other(bases):
    """MixedNUTS' surrogate and a mixture; AutoAttack on MixedNUTS is in test_adaptive."""
    for both in (
        mixing.mixed_nuts(*bases, **mixing.MIXED_NUTS["cifar10"].options).surrogate,
        mixing.mixed(*bases, alpha=0.6),
    ):
        labels = both(IMAGES).argmax(-1)
        attack = {"pgd": evaluation.PGD(threat=threats.linf(0.3), steps=5)}
        result = evaluation.evaluate(both, IMAGES, labels, attacks=attack)
        assert result.clean.value == 1
        assert result.worst.value < 1


def test_attacked_by_autoattack_like_any_other(bases):
    both = mixing.mixed(*bases, alpha=0.6)
    labels = both(IMAGES).argmax(-1)
    custom = {"version": "custom", "attacks": ["apgd-ce"], "steps": 5, "batch_size": 16}
    report = evaluation.autoattack(both, IMAGES, labels, norm="linf", eps=0.3, **custom)
    assert report.clean_accuracy.value == 1
    assert report.robust_accuracy.value < 1


def test_exported_like_any_other(bases):
    both = mixing.mixed(*bases, alpha=0.6)
    shape = jax.ShapeDtypeStruct(IMAGES.shape, jnp.float32)
    exported = jax.export.export(jax.jit(both.__call__))(shape)
    np.testing.assert_allclose(exported.call(IMAGES), both(IMAGES), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "one of the two"),
        ({"alpha": 0.5, "gamma": lambda a, b: a}, "one of the two"),
        ({"alpha": 1.5}, "alpha must be in"),
        ({"gamma": lambda a, b: a}, "std must have with_features"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(ValueError, match=message):
        mixing.mixed(lambda x: x, lambda x: x, **options)


def test_mixing_is_light():
    assert not loaded("import jaxrobust.mixing") & set(LIGHT)


def test_bad_range(bases):
    with pytest.raises(ValueError, match="alpha_bias"):
        mixing.mixed(*bases, gamma=lambda a, b: a, alpha_scale=0.5, alpha_bias=0.6)
    with pytest.raises(ValueError, match="surrogate_alpha"):
        mixing.mixed_nuts(*bases, s=1, p=1, c=0, alpha=0.5, surrogate_alpha=-1)
