"""Rotations and translations: reference values, exact cases, gradients, and the threat's laws."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from jaxrobust import threats
from jaxrobust.threats import _sample
from tests.models.quick import quick

PADDINGS = ("zeros", "edge", "reflect", "symmetric")
FILES = {"s32": "spatial32_public", "s28": "spatial_public", "s17": "spatial_public"}
FILES["s12x18"] = "spatial_public"
ONE_PASS = {"zeros": "zeros", "border": "edge", "reflect_edge": "reflect"}
ONE_PASS["reflect_border"] = "symmetric"
TWO_PASS = {"twopass_constant": "zeros", "twopass_reflect": "reflect"}


move = jax.jit(threats.rotate_translate, static_argnames="padding")
move_nearest = jax.jit(threats.rotate_translate_nearest)
move_twice = jax.jit(threats.rotate_translate_twice, static_argnames=("padding", "pad"))


def transformed(function, images, degrees, shift, **options):
    return quick(jax.vmap(lambda *args: function(*args, **options)))(images, degrees, shift)


@pytest.mark.parametrize(("tag", "width"), [*((tag, 64) for tag in FILES), ("s12x18", 32)])
def test_reference_values(golden, tag, width):
    """In float64 to the rounding of the stored float32, in float32 to its own."""
    data, tolerance = golden(FILES[tag]), {64: 3e-8, 32: 3e-6}[width]
    with jax.enable_x64(width == 64):
        images = jnp.asarray(data[f"{tag}/x"][data[f"{tag}/image_index"]], f"float{width}")
        degrees, shift = (
            jnp.asarray(data[f"{tag}/{k}"], images.dtype) for k in ("angle_deg", "shift_px")
        )
        compared = 0
        for function, names in (
            (threats.rotate_translate, ONE_PASS),
            (threats.rotate_translate_twice, TWO_PASS),
        ):
            for name, padding in names.items():
                if f"{tag}/{name}" in data:
                    out = transformed(function, images, degrees, shift, padding=padding)
                    np.testing.assert_allclose(out, data[f"{tag}/{name}"], atol=tolerance, rtol=0)
                    compared += 1
    assert compared >= 5


@pytest.mark.parametrize("tag", ["s32", "s28", "s17"])
def test_nearest_is_pillows_to_the_pixel(golden, tag):
    data = golden(FILES[tag])
    images = jnp.asarray(data[f"{tag}/pil/x_uint8"][data[f"{tag}/image_index"]])
    degrees = jnp.asarray(data[f"{tag}/angle_deg"], jnp.float32)
    still = jnp.zeros((len(degrees), 2))
    out = transformed(threats.rotate_translate_nearest, images, degrees, still)
    np.testing.assert_array_equal(out, data[f"{tag}/pil/rotate_nearest"])
    shift = jnp.asarray(data[f"{tag}/pil/int_shift_px"], jnp.float32)
    out = transformed(threats.rotate_translate_nearest, images, 0 * degrees, shift)
    np.testing.assert_array_equal(out, data[f"{tag}/pil/translate_nearest"])


def test_nearest_is_the_installed_pillows_on_a_large_image(float64):
    image = np.random.default_rng(0).integers(256, size=(300, 301), dtype=np.uint8)
    for degrees in (0.5, -17.0, 173.3):
        turned = move_nearest(image[..., None], degrees, (0.0, 0.0))[..., 0]
        np.testing.assert_array_equal(turned, PIL.Image.fromarray(image).rotate(degrees))


def test_nearest_loses_what_the_rotation_moves_out():
    image = jnp.zeros((4, 8, 1)).at[0, 7].set(1)
    turned = move_nearest(image, 90.0, (0.0, 0.0))
    back = move_nearest(image, 90.0, (4.0, 4.0))
    assert turned.sum() == back.sum() == 0
    assert move(image, 90.0, (4.0, 4.0)).sum() > 0


@pytest.mark.parametrize("degrees", [30.0, 90.0, -142.0])
def test_nearest_turns_and_then_shifts_by_whole_pixels(degrees):
    image = jnp.arange(1.0, 71.0).reshape(7, 10, 1)  # no pixel is 0
    still = np.pad(move_nearest(image, degrees, (0.0, 0.0)), ((3, 3), (3, 3), (0, 0)))
    for right, down in itertools.product(range(-3, 4), repeat=2):
        out = move_nearest(image, degrees, (float(right), float(down)))
        wanted = still[3 - down : 10 - down, 3 - right : 13 - right]
        np.testing.assert_array_equal(out, wanted, err_msg=f"{right}, {down}")


@pytest.mark.parametrize("share", [(2 * 24 / 224, False), (2 * 24 / 224, True)])
def test_a_normalised_matrix_is_a_shift_to_the_left(golden, share):
    """What grid_sample returns for a translation in its own units, which ports mistake."""
    part, corners = share
    data = golden("spatial_public")
    pixels = -part * (27 if corners else 28) / 2
    out = move(jnp.asarray(data["s28/x"][0]), 0.0, (pixels, 0.0))
    name = f"s28/naive_tx_2x24_over_224_ac_{str(corners).lower()}"
    np.testing.assert_allclose(out, data[name][0], atol=2e-6)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("side", [1, 6, 7])
def test_quarter_turns_and_whole_pixels_are_exact(side, padding, key):
    image = jax.random.uniform(key, (side, side, 3))
    for quarters in (*range(-5, 6), 4001):
        turned = move(image, 90.0 * quarters, (0.0, 0.0), padding=padding)
        np.testing.assert_array_equal(turned, np.rot90(image, quarters % 4))
    image = jax.random.uniform(key, (side, side + 3, 2))
    out = move(image, 180.0, (0.0, 0.0), padding=padding)
    np.testing.assert_array_equal(out, np.asarray(image)[::-1, ::-1])
    modes = {"zeros": "constant", "edge": "edge", "reflect": "reflect", "symmetric": "symmetric"}
    around = np.pad(image, ((2, 2), (2, 2), (0, 0)), modes[padding])
    out = move(image, 0.0, (2.0, -1.0), padding=padding)
    np.testing.assert_array_equal(out, around[3 : 3 + side, : side + 3])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_nothing_to_do_changes_no_bit(dtype, key):
    image = jax.random.uniform(key, (6, 9, 2)).astype(dtype)
    for out in (
        move(image, 0.0, (0.0, 0.0)),
        move_nearest(image, 0.0, (0.0, 0.0)),
        move_twice(image, 0.0, (0.0, 0.0), pad=3),
    ):
        assert out.dtype == image.dtype
        assert (out == image).all()


def test_low_precision_images_are_sampled_at_full_precision(key):
    image = jax.random.uniform(key, (32, 32, 3)).astype(jnp.bfloat16)
    exact = move(image.astype(jnp.float32), 17.0, (1.3, -2.1))
    out = move(image, 17.0, (1.3, -2.1)).astype(jnp.float32)
    np.testing.assert_allclose(out, exact, rtol=2**-8)


PLACES = [(0.0, (0.0, 0.0)), (90.0, (1.0, 0.0)), (-142.0, (2.2, 0.9))]


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.usefixtures("float64")
def test_gradients_agree_with_finite_differences(place, padding):
    """Also where the samples are exactly on pixels, and the slope is that of both sides."""
    rng = np.random.default_rng(0)
    image, weights = (jnp.asarray(rng.uniform(size=(7, 8, 2))) for _ in range(2))

    def score(degrees, shift):
        out = threats.rotate_translate(image, degrees, shift, padding=padding)
        return jnp.vdot(weights, out)

    degrees, shift = jnp.asarray(place[0]), jnp.asarray(place[1])
    of_degrees, of_shift = quick(jax.grad(score, (0, 1)))(degrees, shift)
    score, h = quick(score), 1e-6
    assert abs(of_degrees) > 1e-3
    np.testing.assert_allclose(
        of_degrees, (score(degrees + h, shift) - score(degrees - h, shift)) / (2 * h), atol=1e-6
    )
    for axis in range(2):
        step = h * jnp.eye(2)[axis]
        quotient = (score(degrees, shift + step) - score(degrees, shift - step)) / (2 * h)
        np.testing.assert_allclose(of_shift[axis], quotient, atol=1e-6)


@pytest.mark.parametrize("padding", PADDINGS)
def test_the_gradient_of_pixels_is_the_adjoint(padding, key):
    image, other = jax.random.uniform(key, (2, 9, 6, 3))

    @quick
    def both_sides(image):
        out, back = jax.vjp(
            lambda x: threats.rotate_translate(x, 23.0, (1.5, -0.7), padding=padding), image
        )
        return jnp.vdot(other, out), jnp.vdot(back(other)[0], image)

    np.testing.assert_allclose(*both_sides(image), rtol=1e-5)


def test_derivatives_have_derivatives(key):
    image, other = jax.random.uniform(key, (2, 9, 6, 3))

    def score(shift):
        return jnp.vdot(other, threats.rotate_translate(image, 5.0, shift))

    hessian = quick(jax.hessian(score))(jnp.array([0.3, 0.1]))
    assert abs(hessian[0, 1]) > 1e-2
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-4)


@pytest.mark.parametrize("padding", PADDINGS)
def test_both_forms_have_the_same_values_and_derivatives(padding, key):
    """Products of matrices, which TPUs run, against look-ups, which all others run."""
    image = jax.random.uniform(key, (5, 7, 2))
    v = jnp.concatenate([jnp.linspace(-9, 12, 64), jnp.arange(-8.0, 12.0)])
    u = v[::-1]

    @quick
    def forms(image, rows, columns):
        def run(form):
            out, back = jax.vjp(lambda x: form(x, rows, columns), image)
            return out, back(out)

        return run(_sample.by_gather), run(_sample.by_matmul)

    for rows in (_sample._values(v, 5, padding), _sample._slopes(v, 5, padding)):
        for columns in (_sample._values(u, 7, padding), _sample._slopes(u, 7, padding)):
            chex.assert_trees_all_close(*forms(image, rows, columns), atol=1e-5)


def test_tpus_get_no_gather_and_large_images_no_products():
    def program(platform, side=8):
        image = jax.ShapeDtypeStruct((side, side, 1), jnp.float32)

        def gradient(image, a):
            return jax.grad(lambda x: threats.rotate_translate(x, a, (0.0, 0.0)).sum())(image)

        traced = jax.jit(gradient).trace(image, 3.0)
        return traced.lower(lowering_platforms=(platform,)).as_text()

    assert "dot_general" in program("tpu")
    assert "gather" not in program("tpu")
    assert "scatter" not in program("tpu")
    assert "scatter" in program("cpu")
    assert "dot_general" not in program("cpu")
    assert "dot_general" not in program("tpu", side=65)


# ----- the threat

SHAPE = (5, 6, 8, 2)


def jitted(threat, size=5):
    """The threat's verbs, each compiled: one by one, their operations would take seconds."""
    return threats.BatchedThreat(*map(quick, threats.batched(threat, size)))


def images_of(key):
    x = jax.random.uniform(key, SHAPE)
    return jnp.where(x < 0.3, 0.0, jnp.where(x > 0.8, 1.0, x))


def within(z, degrees, shift):
    degrees, shift = jnp.broadcast_to(degrees, 5), jnp.broadcast_to(shift, 5)
    assert (jnp.abs(z.degrees) <= degrees).all()
    assert (jnp.abs(z.shift_px) <= shift[:, None]).all()


@pytest.mark.parametrize("method", ["bilinear", "nearest"])
@pytest.mark.parametrize("per_example", [False, True])
def test_init_and_project_stay_inside(method, per_example, key):
    scale = jnp.linspace(0, 1, 5) if per_example else jnp.ones(())
    degrees, shift = 30 * scale, 2.5 * scale
    verbs = jitted(threats.spatial(degrees, shift, method=method))
    x = images_of(key)
    within(verbs.init(jax.random.split(key, 5), x), degrees, shift)
    wild = threats.Transform(
        jnp.array([1e9, -1e9, 20, 0, -50.0]), jnp.linspace(-9, 9, 10).reshape(5, 2)
    )
    z = verbs.project(wild, x)
    within(z, degrees, shift)
    chex.assert_trees_all_equal(verbs.project(z, x), z)
    out = verbs.apply(z, x)
    assert out.shape == x.shape
    assert out.min() >= 0
    assert out.max() <= 1 + 1e-6
    if per_example:
        assert (out[0] == x[0]).all()


def test_random_starts_fill_the_box(key):
    verbs = jitted(threats.spatial(30.0, 3.0), 4000)
    x = jnp.zeros((4000, 2, 2, 1))
    z = verbs.init(jax.random.split(key, 4000), x)
    for values, limit in ((z.degrees, 30), (z.shift_px[:, 0], 3), (z.shift_px[:, 1], 3)):
        assert 0.99 * limit < jnp.abs(values).max() <= limit
        assert abs(values.mean()) < 0.05 * limit
        np.testing.assert_allclose(values.std(), limit / np.sqrt(3), rtol=0.05)


def test_steps_are_in_degrees_and_pixels_or_shares(key):
    verbs = jitted(threats.spatial(30.0, jnp.linspace(0, 4, 5)))
    zero = threats.Transform(jnp.zeros(5), jnp.zeros((5, 2)))
    grad = threats.Transform(jnp.array([1e-20, -3, 0, 1, 1]), jnp.full((5, 2), -7.0))
    z = verbs.ascend(zero, grad, threats.Transform(2.0, 0.5))
    np.testing.assert_array_equal(z.degrees, [2, -2, 0, 2, 2])
    np.testing.assert_array_equal(z.shift_px, jnp.full((5, 2), -0.5))
    z = verbs.ascend(zero, grad, 0.1)
    np.testing.assert_allclose(z.degrees, [3, -3, 0, 3, 3], rtol=1e-6)
    np.testing.assert_allclose(z.shift_px[:, 0], -0.1 * np.linspace(0, 4, 5), rtol=1e-6)
    z = verbs.ascend(zero, grad, threats.Transform(jnp.arange(5.0), 0.5))
    np.testing.assert_array_equal(z.degrees, [0, -1, 0, 3, 4])


def test_the_corners_of_a_grid_are_the_limits():
    x, threat = jnp.zeros((4, 4, 1)), threats.spatial(30.0, 3.0)
    z = threat.on_grid(jnp.array([0.5, -1.0, 0.25]), x)
    np.testing.assert_array_equal(z.degrees, 7.5)
    np.testing.assert_array_equal(z.shift_px, [1.5, -3.0])


def test_compose_before_and_after_a_norm(key):
    x, eps = images_of(key), 0.1
    keys = jax.random.split(key, 5)
    spatial, linf = threats.spatial(30.0, 2.0), threats.linf(eps)
    outside = jitted(threats.compose(spatial, linf))
    z = outside.project(outside.init(keys, x), x)
    moved = jitted(spatial).apply(z[0], x)
    both = outside.apply(z, x)
    assert 0.05 < jnp.abs(both - moved).max() <= eps + 1e-6
    inside = jitted(threats.compose(linf, spatial))
    z = inside.project(inside.init(keys, x), x)
    assert jnp.abs(z[0]).max() <= eps
    np.testing.assert_allclose(inside.apply(z, x), jitted(spatial).apply(z[1], x + z[0]), atol=1e-6)
    for out in (both, inside.apply(z, x)):
        assert out.min() >= -1e-6
        assert out.max() <= 1 + 1e-6
    steps = (threats.Transform(1.0, 0.1), 0.01)
    moved = outside.ascend((z[1], z[0]), (z[1], z[0]), steps)
    np.testing.assert_allclose(jnp.abs(moved[0].degrees - z[1].degrees), 1.0, atol=1e-5)


def test_a_curriculum_of_limits_is_one_program(key):
    @quick
    @chex.assert_max_traces(n=1)
    def perturb(threat, x):
        verbs = threats.batched(threat, len(x))
        return verbs.apply(verbs.init(jax.random.split(key, len(x)), x), x)

    x = images_of(key)
    outs = [perturb(threats.spatial(d, s), x) for d, s in ((0, 0), (30, 3), (180.0, 0))]
    assert (outs[0] == x).all()
    assert (outs[1] != x).any()
    assert len(jax.tree.leaves(threats.spatial(30, 3))) == 2


def test_bfloat16_images(key):
    x = images_of(key).astype(jnp.bfloat16)
    verbs = jitted(threats.spatial(30, 3))
    z = verbs.init(jax.random.split(key, 5), x)
    assert z.degrees.dtype == jnp.float32
    assert verbs.apply(verbs.project(z, x), x).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: threats.spatial(-1, 0), "max_degrees must be .* at least 0 and at most 180 .deg"),
        (lambda: threats.spatial(181, 0), "max_degrees .* got 181"),
        (lambda: threats.spatial(0, float("nan")), "max_shift_px must be .*pixels"),
        (lambda: threats.spatial(0, 0, padding="wrap"), "padding must be one of 'zeros'.*'wrap'"),
        (lambda: threats.spatial(0, 0, method="cubic"), "method must be one of .*'cubic'"),
        (
            lambda: threats.spatial(0, 0, method="nearest", padding="edge"),
            "padding must be 'zeros' for method 'nearest', not 'edge'",
        ),
        (
            lambda: threats.rotate_translate(jnp.zeros((2, 4, 4, 1)), 0, (0, 0)),
            r"image must be one image \[h, w, c\].*jax.vmap.* got float32\[2, 4, 4, 1\]",
        ),
        (
            lambda: threats.rotate_translate(jnp.zeros((4, 4, 1), jnp.uint8), 0, (0, 0)),
            "floating point",
        ),
        (
            lambda: threats.rotate_translate(jnp.zeros((4, 4, 1)), 0, (0, 0), padding="wrap"),
            "padding must be one of .*'wrap'",
        ),
        (
            lambda: threats.rotate_translate_twice(
                jnp.zeros((8, 8, 1)), 0, (0, 0), padding="reflect"
            ),
            "pad must be at most 7 for 'reflect' padding of an image of 8 x 8 pixels, got 16",
        ),
        (lambda: threats.rotate_translate_nearest(jnp.zeros((4, 4)), 0, (0, 0)), "one image"),
    ],
)
def test_errors_name_the_argument(make, message):
    with pytest.raises(ValueError, match=message):
        make()
