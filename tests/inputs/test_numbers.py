"""Shapes of hyper-parameters: one number for all examples or one each, never a silent outer product."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import evaluation, losses, objectives, threats
from jaxrobust.inputs import InputError, as_number
from tests.inputs.test_door import CALLS, FUNCTIONS, IMAGES, KEY, LABELS, LOGITS, network

COUNTS = ("num_steps", "num_classes")


def numbers_of_losses():
    for name, kwargs in CALLS.items():
        for parameter, value in kwargs.items():
            is_number = isinstance(value, int | float) and parameter not in COUNTS
            if name.startswith("losses.") and is_number:
                yield name, parameter


@pytest.mark.parametrize(("name", "parameter"), list(numbers_of_losses()))
@pytest.mark.parametrize("shape", [(4, 1), (3,)])
def test_a_loss_refuses_a_number_of_another_shape(name, parameter, shape):
    """`[b, 1]` beside `[b]` would make `[b, b]`."""
    value = np.full(shape, CALLS[name][parameter], np.float32)
    with pytest.raises(InputError, match=rf"\b{parameter}\b.*\({shape[0]},"):
        FUNCTIONS[name](**CALLS[name] | {parameter: value})
    with pytest.raises(InputError, match=rf"\b{parameter}\b"):
        jax.eval_shape(lambda v: FUNCTIONS[name](**CALLS[name] | {parameter: v}), value)


@pytest.mark.parametrize("loss", [losses.mtl_ibp, losses.exp_ibp, losses.cc_ibp])
def test_a_weight_for_each_example_is_that_example_s(loss):
    shares = np.array([0.1, 0.4, 0.7, 1.0], np.float32)
    together = loss(LOGITS, LOGITS[::-1].copy(), LABELS, alpha=shares)
    alone = [
        loss(LOGITS[i : i + 1], LOGITS[::-1][i : i + 1].copy(), LABELS[i : i + 1], alpha=shares[i])
        for i in range(4)
    ]
    np.testing.assert_allclose(together, np.concatenate(alone), rtol=1e-6)


def test_ramp_takes_one_batch():
    """Labels of two batches were taken for probabilities where verdicts were counted."""
    twice = {n: np.stack([LOGITS, LOGITS]) for n in ("source", "target", "best")}
    with pytest.raises(InputError, match=r"must be \[b, k\], got shape \(2, 4, 4\)"):
        losses.ramp(**twice, labels=np.stack([LABELS, LABELS]), lbd=1.0)


@pytest.mark.parametrize(
    ("name", "parameter"),
    [("pgd", "momentum"), ("pgd", "stop_after"), ("fab", "eta"), ("fab", "beta"), ("fab", "alpha_max")],
)  # fmt: skip
def test_an_attack_refuses_a_number_of_another_shape(name, parameter):
    call = CALLS[f"attacks.{name}"]
    value = np.full((4, 1), call[parameter], np.float32)
    with pytest.raises(InputError, match=rf"\b{parameter}\b.*\(4, 1\)"):
        FUNCTIONS[f"attacks.{name}"](**call | {parameter: value})


def test_lists_of_several_lengths_are_no_array():
    with pytest.raises(InputError, match="^beta must be an array, got lists of several lengths"):
        as_number([1.0, [2.0, 3.0]], name="beta")
    with pytest.raises(InputError, match="^labels must be an array"):
        losses.cross_entropy(LOGITS, [0, 1, [2], 3])


def view_and_loss(objective, threat, logits_fn=network, labels=LABELS, images=None):
    """What a recipe does without a train step."""
    images = jnp.asarray(IMAGES if images is None else images)
    batch, state = objectives.Batch(images, jnp.asarray(labels)), ()
    if hasattr(objective, "init_state"):
        sizes = objectives.Sizes(4, images.shape[1:], len(images), threat)
        held = objective.init_state(sizes)
        state = ({**held, "key": KEY, "devices": objectives.Devices(), "helper": logits_fn},)
    stateful = getattr(objective, "attack_statistics", "") == "update"
    inner = objectives.Stateful(lambda x, s: (logits_fn(x), s), {}) if stateful else logits_fn
    views = objective.inner(inner, KEY, batch, threat, *state)
    images_of = {"clean": batch.images, **views.images}
    logits = {p.name: logits_fn(images_of[p.view]) for p in objective.passes}
    if hasattr(objective, "bound"):
        logits["margins"] = jnp.ones((len(images), 4))
    return views, objective.outer(logits, batch, views.extras, *state)[0]


USED = [  # a number where the recipe uses it, not where it is made: runs are stacked
    ("trades", "beta"), ("lbgat", "beta"), ("distance_trades", "beta"), ("nuat", "lam"),
    ("score", "clip"), ("score", "beta"), ("mart", "beta"), ("gkl", "beta"), ("gkl", "alpha"),
    ("gkl", "attack_beta"), ("hat", "h"), ("hat", "gamma"), ("liet", "lam"), ("liet", "min_mask"),
    ("pgi", "lam"), ("pgi", "momentum"), ("n_fgsm", "noise"), ("n_fgsm", "step_size"),
    ("fgsm_rs", "step_size"), ("grad_align", "step_size"), ("gairat", "lam"), ("gairat", "tau"),
    ("pgd_at", "step_size"), ("pgd_at", "tau"), ("ibp", "kappa"), ("sabr", "shrink"),
    ("sabr", "relative_step"), ("mtl_ibp", "attack_scale"), ("mtl_ibp", "alpha"),
    ("binary_trades", "lam"), ("gair_trades", "lam"), ("gair_trades", "beta"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "parameter"), USED)
def test_a_recipe_refuses_a_number_of_another_shape(name, parameter):
    kind = getattr(objectives, name)
    settings = {"steps": 2} if "steps" in inspect.signature(kind).parameters else {}
    two = name == "binary_trades"
    logits_fn = (lambda x: network(x)[:, :2]) if two else network
    for shape in ((3,), (2, 4)):
        objective = kind(**settings, **{parameter: np.full(shape, 0.5, np.float32)})
        with pytest.raises(InputError, match=rf"{parameter} must be .*\({shape[0]},"):
            view_and_loss(objective, threats.linf(0.1), logits_fn, LABELS % 2 if two else LABELS)


@pytest.mark.parametrize("value", ["6", True, 1j, None])
@pytest.mark.parametrize(
    ("name", "parameter"),
    [
        ("trades", "beta"), ("trades", "label_smoothing"), ("gairat", "lam"), ("nuat", "lam"),
        ("distance_pgd_at", "clip_loss"), ("pgi", "momentum"), ("distance_trades", "clip_clean"),
        ("sabr", "shrink"), ("pgd_at", "step_size"), ("trades", "clean_passes"),
    ],
)  # fmt: skip
def test_a_recipe_refuses_what_is_no_number(name, parameter, value):
    static = ("label_smoothing", "clip_loss", "clip_clean", "clean_passes")
    if value is None and parameter not in static:
        return  # JAX's own placeholder; or no step size
    if value is True and parameter == "clip_clean":
        return
    with pytest.raises(InputError, match=rf"{parameter} must be .*got .*{value}"):
        getattr(objectives, name)(**{parameter: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [("nuat", -1.0), ("liet", -1.0), ("pgi", -1.0), ("grad_align", -1.0), ("binary_trades", 0.0),
     ("binary_trades", -1.0), ("nuat", np.inf)],
)  # fmt: skip
def test_a_weight_is_not_negative_where_a_shift_may_be(name, value):
    with pytest.raises(InputError, match="lam must be"):
        getattr(objectives, name)(lam=value)
    assert objectives.gairat(lam=-1.0).lam == -1.0
    assert np.isinf(objectives.gair_fat(lam=np.inf).lam)


def test_sabr_has_a_box():
    with pytest.raises(InputError, match="shrink must be in"):
        objectives.sabr(shrink=0.0)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16])
def test_binary_trades_widens_its_labels(dtype):
    """`2 y - 1` of a uint8 is 255 for class 0."""

    def two(images):
        return network(images)[:, :2]

    labels = LABELS % 2
    objective = objectives.binary_trades(steps=1)
    logits = {"clean": LOGITS[:, :2], "adv": LOGITS[:, :2]}

    def loss(labels):
        return objective.outer(logits, objectives.Batch(LOGITS, labels), {})[0]

    np.testing.assert_array_equal(jax.jit(loss)(labels.astype(dtype)), loss(labels))


def test_gair_trades_takes_examples_without_a_label():
    """-1 is one for which the loss has no cross-entropy, and the attack the predicted class."""
    objective = objectives.gair_trades(steps=2)
    known = np.asarray(network(IMAGES)).argmax(-1)
    some = np.where(np.arange(4) < 2, -1, known)
    views, loss = view_and_loss(objective, threats.linf(0.1), labels=some)
    full, _ = view_and_loss(objective, threats.linf(0.1), labels=known)
    for name, images in full.images.items():
        np.testing.assert_array_equal(views.images[name], images)
    assert views.extras["kappa"][:2].tolist() == [0, 0]
    assert np.isfinite(np.asarray(loss)).all()
    with pytest.raises(InputError, match="-2 to"):
        view_and_loss(objective, threats.linf(0.1), labels=np.full(4, -2))


@pytest.mark.parametrize("name", ["ibp", "mtl_ibp", "sabr"])
def test_half_precision_images_are_bounded_over_the_whole_ball(name):
    """A radius rounded to bfloat16 is another radius; so is an image minus it."""
    images = jnp.asarray(IMAGES, jnp.bfloat16)
    kind = getattr(objectives, name)
    objective = kind() if name == "ibp" else kind(steps=1, restarts=1)
    views = objective.inner(
        lambda x: network(x.astype(jnp.float32)),
        KEY,
        objectives.Batch(images, jnp.asarray(LABELS)),
        threats.linf(8 / 255),
    )
    low, high = (np.asarray(views.images[end], np.float64) for end in ("lower", "upper"))
    clean, eps = np.asarray(images, np.float64), float(np.float32(8 / 255))
    if name == "sabr":
        assert (low >= np.maximum(clean - eps, 0) - 1e-7).all()
        assert (high <= np.minimum(clean + eps, 1) + 1e-7).all()
    else:
        np.testing.assert_allclose(low, np.maximum(clean - eps, 0), atol=1e-7)
        np.testing.assert_allclose(high, np.minimum(clean + eps, 1), atol=1e-7)
    if "adv" in views.images:
        assert views.images["adv"].dtype == jnp.bfloat16
        assert np.abs(np.asarray(views.images["adv"], np.float64) - clean).max() <= eps


@pytest.mark.parametrize("name", ["trades", "score", "hat", "lbgat", "gkl", "gair_trades", "mart"])
def test_an_empty_batch_has_empty_views(name):
    def flat(images):
        return images.reshape(len(images), 9) @ jnp.ones((9, 4))

    objective = getattr(objectives, name)(steps=1)
    images = IMAGES[:0]
    state = ()
    if hasattr(objective, "init_state"):
        held = objective.init_state(objectives.Sizes(4, images.shape[1:], 0))
        state = ({**held, "helper": flat},)
    batch = objectives.Batch(jnp.asarray(images), jnp.zeros(0, jnp.int32))

    def cannot(images):
        raise AssertionError("of no images there are no logits")

    if name == "hat":
        return
    views = objective.inner(cannot, jax.random.key(0), batch, threats.linf(0.1), *state)
    assert all(len(found) == 0 for found in views.images.values())


@pytest.mark.parametrize("name", ["trades", "gair_trades", "binary_trades", "gkl"])
def test_a_network_that_returns_a_tuple_is_named(name):
    objective = getattr(objectives, name)(steps=1)
    labels = LABELS % 2 if name == "binary_trades" else LABELS
    with pytest.raises(InputError, match="logits_fn must return one array .* a tuple of 2"):
        view_and_loss(objective, threats.linf(0.1), lambda x: (network(x), {}), labels)


@pytest.mark.parametrize(
    ("call", "shown"),
    [
        (lambda: evaluation.optimality([0.1], [0.1], np.ones(2)), "clean_accuracy must be one"),
        (lambda: evaluation.front(np.ma.masked_array([0.1], [True]), [0.1]), "clean must be .*mask"),
        (lambda: evaluation.front(["0.9"], [0.1]), "clean must be"),
        (lambda: evaluation.hypervolume([0.1], [0.1], reference=("0", "0")), "reference must be"),
        (lambda: evaluation.robust_at([0.1], [0.1], np.ma.masked_array([0.1], [True])), "at must"),
        (lambda: evaluation.packed_right({"a": np.ones(3)}), "masks must be bool"),
        (lambda: evaluation.packed_right({"a": np.ones(3, bool), "b": np.ones(4, bool)}), "one length"),
        (lambda: evaluation.packed_right({}), "at least one"),
        (lambda: evaluation.unpacked_right({"images": 1, "columns": {"a": "/wA="}}), "2 bytes"),
    ],
)  # fmt: skip
def test_numbers_of_evaluations(call, shown):
    with pytest.raises(InputError, match=shown):
        call()


@pytest.mark.parametrize("dtype", [">f4", ">f8", "longdouble"])
def test_arrays_of_other_machines_are_read(dtype):
    """NumPy holds them, JAX does not."""
    images, labels = IMAGES.astype(dtype), LABELS.astype(">i8")
    found = evaluation.evaluate(network, images, labels, attacks={})
    same = evaluation.evaluate(network, IMAGES, LABELS, attacks={})
    assert found.clean == same.clean
    assert losses.margin(LOGITS.astype(">f4"), labels).shape == (4,)


def test_eight_bits_are_no_images():
    with pytest.raises(InputError, match="images must be of 16 bits or more"):
        evaluation.evaluate(network, IMAGES.astype(jnp.float8_e4m3fn), LABELS, attacks={})


@pytest.mark.parametrize("threat", ["linf", 0.1, None])
def test_a_threat_is_a_threat(threat):
    with pytest.raises(InputError, match="threat must be"):
        view_and_loss(objectives.pgd_at(steps=1), threat)


@pytest.mark.parametrize(
    ("make", "shown"),
    [
        (lambda: objectives.avg_norms(norms=None), "norms must be different ones"),
        (lambda: objectives.avg_norms(norms="linf"), "norms must be different ones"),
        (lambda: objectives.distance_trades(distance=["js"]), "distance must be a name"),
        (lambda: objectives.trades(clean_passes=3), "clean_passes must be"),
    ],
)
def test_words_of_another_kind_are_told(make, shown):
    with pytest.raises(InputError, match=shown):
        make()


def test_a_list_of_step_sizes_is_one_for_each_example():
    options = {"threat": threats.linf(0.1), "steps": 1}
    call = {n: CALLS["attacks.pgd"][n] for n in ("logits_fn", "key", "images", "labels")}
    found = FUNCTIONS["attacks.pgd"](**call, **options, step_size=[0.1, 0.2, 0.3, 0.4])
    array = np.array([0.1, 0.2, 0.3, 0.4], np.float32)
    same = FUNCTIONS["attacks.pgd"](**call, **options, step_size=array)
    np.testing.assert_array_equal(found.images, same.images)


@pytest.mark.parametrize(
    ("box", "spec", "shown"),
    [
        (("0", "1"), None, "box must be"),
        ((0.0, np.nan), None, "box must be"),
        (((0.0, 0.0), (1.0, 1.0)), None, "box must be"),
        ((0.0, 1.0), np.full((1, 4), 1j), "spec must be"),
        ((0.0, 1.0), np.full((1, 4), np.nan), "spec must be"),
    ],
)
def test_boxes_and_rows_are_numbers(box, spec, shown):
    call = CALLS["bounds.crown"]
    with pytest.raises(InputError, match=shown):
        FUNCTIONS["bounds.crown"](**call, box=box, spec=spec)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a", "lower must be floating point"),
        (None, "lower must be floating point"),
        (np.ma.masked_array(IMAGES, IMAGES > 0.5), "lower must be an array without a mask"),
        (np.zeros((4, 3, 8, 8), np.float32), "lower must be .* channels last"),
    ],
)
def test_ends_of_boxes_are_arrays(value, shown):
    with pytest.raises(InputError, match=shown):
        FUNCTIONS["bounds.ibp"](network, value, IMAGES)


def test_ends_and_margins_of_other_machines_are_read():
    low, high = FUNCTIONS["bounds.ibp"](network, IMAGES.astype(">f4"), IMAGES.astype(">f4"))
    np.testing.assert_allclose(low, high, rtol=1e-5)
    assert FUNCTIONS["bounds.verified"](LOGITS.astype(">f4")).shape == (4,)
