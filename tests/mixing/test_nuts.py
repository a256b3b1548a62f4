"""MixedNUTS: the transformation, the mix, the surrogate and the search against the authors' code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import mixing

CASES = [
    (tag, top_k, row)
    for tag, tops, rows in (("c10", (250, 4), range(6)), ("c300", (250,), (1, 2)))
    for top_k in tops
    for row in rows
]


def check(data, name, logits, cotangent, function, *, rtol=1e-10, grad=True):
    """Outputs, probabilities, and the gradient that is stored in float32."""
    out, pullback = jax.vjp(function, logits)
    scale = np.abs(data[f"{name}/out"]).max()
    np.testing.assert_allclose(out, data[f"{name}/out"], rtol=0, atol=rtol * scale)
    if f"{name}/probs" in data:
        np.testing.assert_allclose(
            jax.nn.softmax(out), data[f"{name}/probs"], rtol=0, atol=rtol * 10
        )
    if grad:
        expected = data[f"{name}/grad"]
        atol = 1e-6 * max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(pullback(cotangent)[0], expected, rtol=0, atol=atol)


@pytest.mark.parametrize(("tag", "top_k", "row"), CASES)
def test_the_map(golden, float64, tag, top_k, row):
    data = golden("nuts_public")
    logits, cotangent = (
        jnp.asarray(data[f"{tag}/{k}"], jnp.float64) for k in ("logits", "cotangent")
    )
    s, c, p = data["scp"][row]
    check(
        data,
        f"{tag}/k{top_k}/gelu{row}",
        logits,
        cotangent,
        lambda z: mixing.mixednuts_map(z, s=s, p=p, c=c, top_k=top_k),
    )


@pytest.mark.parametrize(("tag", "top_k"), [("c10", 250), ("c10", 4), ("c300", 250)])
def test_the_normalisation(golden, float64, tag, top_k):
    data = golden("nuts_public")
    logits, cotangent = (
        jnp.asarray(data[f"{tag}/{k}"], jnp.float64) for k in ("logits", "cotangent")
    )
    check(
        data,
        f"{tag}/k{top_k}/ln",
        logits,
        cotangent,
        lambda z: mixing.normalize_logits(z, top_k=top_k),
    )


@pytest.mark.parametrize("clamp", ["relu", "elu", "softplus"])
def test_other_clamps(golden, float64, clamp):
    """Their scale of 0.4 is a float32."""
    data = golden("nuts_public")
    logits, cotangent = (
        jnp.asarray(data[f"c10/{k}"], jnp.float64) for k in ("logits", "cotangent")
    )
    check(
        data,
        f"c10/clamp_{clamp}",
        logits,
        cotangent,
        lambda z: mixing.mixednuts_map(z, s=np.float32(0.4), c=-1.0, p=2.0, clamp=clamp),
    )


def test_without_a_clamp(golden, float64):
    data = golden("nuts_public")
    logits, cotangent = (
        jnp.asarray(data[f"c10/{k}"], jnp.float64) for k in ("logits", "cotangent")
    )
    check(
        data,
        "c10/linear_s1.5_p2",
        logits,
        cotangent,
        lambda z: mixing.mixednuts_map(z, s=1.5, c=7.0, p=2.0, clamp="linear"),
        grad=False,
    )


@pytest.mark.parametrize("row", range(6))
def test_the_map_in_float32(golden, row):
    data = golden("nuts_public")
    s, c, p = (float(x) for x in data["scp"][row])
    logits = jnp.asarray(data["c10/logits"], jnp.float32)
    out = mixing.mixednuts_map(logits, s=s, p=p, c=c)
    expected = data[f"c10/k250/gelu{row}/out"]
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out, expected, rtol=0, atol=5e-6 * np.abs(expected).max())


@pytest.mark.parametrize("clamp", ["gelu", "relu", "elu", "softplus", "linear"])
def test_gradients_are_finite_for_extreme_logits(clamp):
    logits = jnp.float32([[0, 0, 0, 0], [1e30, -1e30, 0, 1], [1e15, 1, 2, 3], [3, 3, 3, -100]])

    def total(z, s, p, c):
        return mixing.mixednuts_map(z, s=s, p=p, c=c, clamp=clamp).sum()

    grads = jax.grad(total, argnums=(0, 1, 2, 3))(logits, *jnp.float32([5.0, 0.7, -1.1]))
    assert all(jnp.isfinite(g).all() for g in grads)


@pytest.mark.parametrize(("name", "row"), [("cifar10", 0), ("cifar100", 1), ("imagenet", 2)])
def test_the_mix_and_its_surrogates(golden, float64, name, row):
    data = golden("nuts_public")
    std, rob, cotangent = (
        jnp.asarray(data[f"mix/{k}"], jnp.float64)
        for k in ("logits_std", "logits_rob", "cotangent")
    )
    preset = mixing.MIXED_NUTS[name]
    map_ = {k: preset.options[k] for k in "spc"}
    s, c, p = data["scp"][row]
    np.testing.assert_allclose([preset.s, preset.c, preset.p], [s, c, p], atol=1e-8)
    np.testing.assert_allclose(preset.alpha, data["mix/alpha"][row], atol=1e-8)
    np.testing.assert_allclose(preset.surrogate_alpha, data["mix/alpha_diffable"][row], atol=1e-8)

    out = mixing.mixednuts_mix(std, rob, alpha=preset.alpha, **map_)
    np.testing.assert_allclose(out, data[f"mix/{name}/logprob"], rtol=0, atol=2e-6)
    grad = jax.grad(lambda z: mixing.mixednuts_mix(z, rob, alpha=preset.alpha, **map_).sum())(std)
    assert not grad.any()
    for kind, alpha, share in (("0", preset.surrogate_alpha, 0.9), ("1", preset.alpha, 0.0)):
        out, pullback = jax.vjp(
            lambda a, b, alpha=alpha, share=share: mixing.mixednuts_surrogate(
                a, b, alpha=alpha, raw_share=share, **map_
            ),
            std,
            rob,
        )
        np.testing.assert_allclose(
            out, data[f"mix/{name}/surrogate_logprob_nonlin{kind}"], rtol=0, atol=2e-6
        )
        for ours, base in zip(pullback(cotangent), ("std", "rob"), strict=True):
            expected = data[f"mix/{name}/surrogate_grad_{base}_nonlin{kind}"]
            atol = 1e-6 * max(1.0, np.abs(expected).max())
            np.testing.assert_allclose(ours, expected, rtol=0, atol=atol)


def test_alpha_first(golden):
    """What the authors' code gives for several alphas at once."""
    data = golden("nuts_public")
    std, rob = (jnp.asarray(data[f"mix/logits_{b}"]) for b in ("std", "rob"))
    alpha = jnp.asarray(data["mix/identity_vector_alpha"], jnp.float32)
    out = mixing.mix(std, rob, alpha=alpha[:, None])
    np.testing.assert_allclose(out, data["mix/identity_vector_alpha_logprob"], rtol=0, atol=2e-5)


def test_one_hot_of_the_accurate_base(golden):
    data = golden("nuts_public")
    logits = jnp.asarray(data["c10/logits"])
    out = jnp.exp(mixing.mixednuts_mix(logits, logits, s=1.0, p=1.0, c=0.0, alpha=0.0))
    np.testing.assert_array_equal(out, data["c10/hardmax/probs"])


def test_the_search(golden):
    data = golden("nuts_public")
    part = {k.removeprefix("search/"): v for k, v in data.items() if k.startswith("search/")}
    found = mixing.mixednuts_search(
        part["atk_correct_logits"],
        part["clean_incorrect_logits"],
        s=part["ss"],
        c=part["cc"],
        p=part["pp"],
        beta=float(part["beta"]),
    )
    np.testing.assert_allclose(100 * found.objective, part["objective_percent"], atol=1e-9)
    assert found.objective.dtype == np.float64

    def ordered(ties):
        return ties[np.lexsort(ties.T[::-1])]

    expected = part["argmin_s_c_p_alpha"]
    np.testing.assert_allclose(ordered(found.ties), ordered(expected), rtol=1e-7)
    assert (np.diff(found.ties[:, 3]) >= 0).all()
    assert ((found.alpha >= 0.5) & (found.alpha <= 1)).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mixing.mixednuts_map(jnp.zeros(3), s=1, p=1, c=0, clamp="tanh"), "clamp must be"),
        (lambda: mixing.normalize_logits(jnp.zeros(3), top_k=1), "top_k"),
        (
            lambda: mixing.mixednuts_search(np.zeros((0, 3)), np.zeros((1, 3)), s=1, c=0, p=1),
            "attacked_right",
        ),
        (
            lambda: mixing.mixednuts_search(
                np.zeros((1, 3)), np.zeros((1, 3)), s=1, c=0, p=1, beta=101
            ),
            "beta",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
