"""Square: schedule and patterns, the reference's runs, chunks, and what it must never do."""

import itertools
import json
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust.attacks import _square, _square_patterns, _square_proposals
from jaxrobust.attacks._square import square, square_chunk, square_init
from jaxrobust.keys import fold_keys
from jaxrobust.losses import margin
from tests.conftest import GOLDEN

NORMS = ("linf", "l2", "l1")
STORED = {"linf": "Linf", "l2": "L2", "l1": "L1"}
EPS = {"linf": 0.04, "l2": 0.5, "l1": 4.0}


def size(values, norm):
    values = np.asarray(values, np.float64).reshape(len(values), -1)
    return np.linalg.norm(values, {"linf": np.inf, "l2": 2, "l1": 1}[norm], axis=1)


def assert_inside(found, images, eps, norm):
    found, images = np.asarray(found, np.float64), np.asarray(images, np.float64)
    assert ((found >= 0) & (found <= 1)).all()  # NaN would fail
    wall = {"linf": eps + 1e-7, "l2": eps * (1 + 1e-6), "l1": eps * (1 + 1e-5) + 1e-6}[norm]
    assert size(found - images, norm).max() <= wall


@pytest.fixture(scope="module")
def data():
    with np.load(GOLDEN / "fab_square_vectors.npz") as archive:
        return {k.removeprefix("square/"): v for k, v in archive.items() if "square/" in k}


@pytest.fixture(scope="module")
def batch(data):
    """The model of the golden runs, its images and labels."""
    p = {k: jnp.asarray(data[f"model/{k}"]) for k in ("w1", "b1", "w2", "b2")}

    def logits_fn(x):
        return jnp.tanh(x.reshape(len(x), -1) @ p["w1"] + p["b1"][None]) @ p["w2"] + p["b2"][None]

    return logits_fn, jnp.asarray(data["x"]), jnp.asarray(data["y"], jnp.int32)


@pytest.fixture(scope="module")
def chunk(batch):
    """Twenty queries anywhere in the schedule: compiled once per norm."""
    logits_fn, _, _ = batch

    @partial(jax.jit, static_argnames="norm")
    @chex.assert_max_traces(n=len(NORMS))
    def run(state, keys, x, y, eps, first_query, norm):
        return square_chunk(
            logits_fn, state, keys, x, y, norm=norm, eps=eps, first_query=first_query, queries=20
        )

    return run


@pytest.fixture(scope="module")
def begin(batch):
    logits_fn, _, _ = batch
    return jax.jit(
        lambda keys, x, y, eps, norm: square_init(logits_fn, keys, x, y, norm=norm, eps=eps),
        static_argnames="norm",
    )


# Schedule and patterns


@pytest.mark.parametrize("side", [8, 28, 32, 64, 224])
def test_window_sides_of_the_reference(golden, side):
    units = golden("attack_units")
    stages = jax.vmap(_square_patterns.stage_of)(units["square/iterations"])
    for norm, name in (("linf", "linf"), ("l2", "l2_l1"), ("l1", "l2_l1")):
        sides = _square_patterns.window_sides(side, side, norm=norm)
        np.testing.assert_array_equal(sides[stages], units[f"square/side_{name}/{side}"])
    np.testing.assert_allclose(0.8 / 2.0 ** np.asarray(stages), units["square/p"])


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_patterns_of_the_reference(golden, norm):
    units = golden("attack_units")
    for side in (1, 2, 3, 5, 7, 9, 29):
        reference = units[f"square/eta_{norm.upper()}/{side}"]
        np.testing.assert_allclose(_square_patterns.pattern(side, norm), reference, atol=1e-7)


@pytest.mark.parametrize("side", [1, 2, 5])
def test_patterns_are_placed_in_their_windows(side):
    vectors = jnp.asarray(_square_patterns.profiles((3, side), "l2")[1], jnp.float32)
    corner = np.array([[row, col] for row in range(7 - side) for col in range(9 - side)])
    table = _square_patterns.pattern(side, "l2")

    @jax.jit
    def place(corner, turned):
        turned = jnp.broadcast_to(turned, (len(corner),))
        window = _square_patterns.inside(corner, jnp.asarray(side), 7, 9)
        return _square_patterns.placed(vectors, corner, turned, 7, 9), window

    for turned in (False, True):
        placed, window = (np.asarray(a)[..., 0] for a in place(corner, turned))
        wanted = np.zeros(placed.shape)
        for image, (row, col) in zip(wanted, corner, strict=True):
            image[row : row + side, col : col + side] = table.T if turned else table
        np.testing.assert_allclose(placed, wanted, atol=1e-6)
        np.testing.assert_array_equal(window, wanted != 0)


@pytest.mark.parametrize("shape", [(1, 1), (4, 3), (5, 2), (9, 9), (14, 20), (32, 28)])
def test_tiles_cover_the_image_with_whole_patterns(shape):
    tiles = _square_patterns.tiling(*shape, "l2")
    assert tiles.upright.shape == shape
    norms = np.zeros((tiles.rows.max() + 1, tiles.cols.max() + 1))
    np.add.at(norms, (tiles.rows[:, None], tiles.cols[None]), tiles.upright**2)
    full = np.isclose(norms, 1)
    assert full[0, 0]
    assert full.sum() >= min(shape[0], 5) * min(shape[1] // max(shape[0] // 5, 1), 5) / 2
    np.testing.assert_allclose((tiles.lying**2).sum(), (tiles.upright**2).sum(), rtol=0.2)


# Runs


class Tape:
    """The reference's captured draws, in order."""

    def __init__(self, data, norm):
        shapes = [json.loads(shape) for shape in data[f"{STORED[norm]}/draws_shapes"]]
        cuts = np.cumsum([np.prod(shape, dtype=int) for shape in shapes])
        parts = np.split(data[f"{STORED[norm]}/draws_flat"], cuts[:-1])
        self.draws = iter([part.reshape(s) for part, s in zip(parts, shapes, strict=True)])

    def number(self):
        return float(next(self.draws).item())

    def start(self, norm):
        if norm == "linf":
            return _square_proposals.StartDraws(
                jnp.zeros(0), jnp.asarray(next(self.draws).transpose(0, 2, 3, 1))
            )
        turned, signs = np.zeros((6, 8, 8), np.float32), np.zeros((6, 8, 8, 3), np.float32)
        for row, col in np.ndindex(8, 8):  # an image of 8 has tiles of one pixel
            turned[:, row, col] = self.number()
            signs[:, row, col] = next(self.draws)[:, :, 0, 0]
        return _square_proposals.StartDraws(jnp.asarray(turned), jnp.asarray(signs))

    def query(self, norm, unfinished):
        corners, turned = np.zeros((6, 2, 2), np.float32), np.zeros(6, np.float32)
        signs = np.zeros((6, 3), np.float32)
        if norm == "linf":
            corners[:, 0] = self.number(), self.number()
            signs[:] = next(self.draws)[:, 0, 0]
        else:
            corners[:] = np.array([self.number() for _ in range(4)]).reshape(2, 2)
            turned[:] = self.number()
            signs[unfinished] = next(self.draws)[:, :, 0, 0]
        return _square_proposals.Draws(*map(jnp.asarray, (corners, turned, signs)))


@pytest.mark.parametrize("norm", NORMS)
def test_runs_of_the_reference(data, batch, norm):
    logits_fn, x, y = batch
    eps = jnp.full(len(x), data[f"{STORED[norm]}/eps"], jnp.float32)
    tape = Tape(data, norm)
    best = _square_proposals.start(tape.start(norm), x, eps, norm=norm)
    np.testing.assert_allclose(best, data[f"{STORED[norm]}/x_init"], atol=1e-5)
    loss = margin(logits_fn(best), y)
    state = _square.SquareState(best, loss, loss > 0, loss >= 0, jnp.ones(len(x), jnp.int32))

    @jax.jit
    def query(state, draws, i):
        proposed = _square_proposals.propose(draws, i, state.images, x, eps, norm=norm)
        return _square._accepted(state, proposed, logits_fn(proposed), y)

    for i in range(60):
        state = query(state, tape.query(norm, ~np.asarray(state.done)), i)
    assert next(tape.draws, None) is None
    np.testing.assert_allclose(state.images, data[f"{STORED[norm]}/x_best"], atol=1e-5)
    np.testing.assert_allclose(-state.loss, data[f"{STORED[norm]}/margin_min"], atol=1e-5)
    np.testing.assert_allclose(-state.loss, data[f"{STORED[norm]}/loss_min"], atol=1e-5)
    np.testing.assert_array_equal(state.queries, data[f"{STORED[norm]}/n_queries"])


@pytest.mark.parametrize("norm", NORMS)
def test_chunks_batches_and_order_do_not_matter(batch, begin, chunk, norm):
    logits_fn, x, y = batch
    keys = jax.random.split(jax.random.key(1), 6)
    eps = jnp.full(6, EPS[norm], jnp.float32)
    start = begin(keys, x, y, eps, norm=norm)
    states = [start]
    for first in (0, 20, 40):
        states.append(chunk(states[-1], keys, x, y, eps, first, norm=norm))
    # Another order; repeats of one example in place of the rest.
    for order in (np.array([5, 2, 0, 1, 4, 3]), np.array([2, 2, 2, 2, 2, 3])):
        state = jax.tree.map(lambda leaf, order=order: np.asarray(leaf)[order], states[1])
        for first in (20, 40):
            state = chunk(state, keys[order], x[order], y[order], eps, first, norm=norm)
        chex.assert_trees_all_equal(
            state, jax.tree.map(lambda leaf, order=order: np.asarray(leaf)[order], states[-1])
        )
    states = jax.device_get(states)
    losses = np.array([state.loss for state in states])
    assert (np.diff(losses, axis=0) >= 0).all()
    assert (losses[-1] > losses[0]).all()
    for before, after in itertools.pairwise(states):
        assert_inside(after.images, x, EPS[norm], norm)
        assert (after.success >= before.success).all()
        frozen = [[leaf[before.done] for leaf in state] for state in (before, after)]
        chex.assert_trees_all_equal(*frozen)
    logits = logits_fn(states[-1].images)
    np.testing.assert_array_equal(states[-1].success, jnp.argmax(logits, -1) != y)
    np.testing.assert_allclose(states[-1].loss, margin(logits, y), atol=1e-6)
    assert 0 < int(states[-1].done.sum()) < 6


@pytest.mark.parametrize("norm", NORMS)
def test_one_program_serves_the_whole_schedule(batch, begin, chunk, norm):
    # `chunk` raises where it is traced again.
    _, x, y = batch
    keys = jax.random.split(jax.random.key(2), 6)
    for i, first in enumerate((0, 300, 4980, 9000)):
        eps = jnp.full(6, EPS[norm] / (i + 1), jnp.float32)
        start = begin(keys, x, (y + i) % 5, eps, norm=norm)._replace(done=jnp.zeros(6, bool))
        state = chunk(start, keys, x, (y + i) % 5, eps, first, norm=norm)
        assert_inside(state.images, x, EPS[norm] / (i + 1), norm)
        changed = np.asarray((state.images != start.images).any(-1).any(0))
        assert changed.any()
    zero = begin(keys, x, y, jnp.zeros(6), norm=norm)
    state = chunk(zero, keys, x, y, jnp.zeros(6), 0, norm=norm)
    np.testing.assert_array_equal(zero.images, x)
    np.testing.assert_array_equal(state.images, x)
    each = jnp.asarray([EPS[norm], 0.0] * 3, jnp.float32)
    state = chunk(begin(keys, x, y, each, norm=norm), keys, x, y, each, 0, norm=norm)
    np.testing.assert_array_equal(state.images[1::2], x[1::2])
    assert bool(jnp.all(jnp.any(state.images[::2] != x[::2], (1, 2, 3))))


def test_windows_leave_out_the_last_row_and_column(key):
    shape, side = (9, 12), jnp.asarray(3)
    keys = jax.random.split(key, 4000)
    draw = jax.jit(_square_proposals.draw, static_argnums=2)
    draws = draw(keys, 7, 2)
    corner = _square_patterns.corners(draws.corners, side, *shape)
    for window in (0, 1):
        seen = np.asarray(_square_patterns.inside(corner[:, window], side, *shape))
        covered = seen.any(0)[..., 0]
        assert covered[:-1, :-1].all()
        assert not covered[-1].any()
        assert not covered[:, -1].any()
    # Two windows, two signs, the orientation: all independent of each other and of the query.
    numbers = np.stack([*np.asarray(draws.corners).reshape(-1, 4).T, draws.turned, *draws.signs.T])
    later = np.asarray(draw(keys, 8, 2).turned)[None]
    correlations = np.corrcoef(np.concatenate([numbers, later])) - np.eye(8)
    assert np.abs(correlations).max() < 0.1
    assert np.abs(numbers.mean(1) - 0.5).max() < 0.03


def test_search_finds_what_a_linear_model_admits(float64):
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(64, 2))
    x = jnp.asarray(0.5 + 0.02 * rng.normal(size=(8, 8, 8, 1)))

    def logits_fn(x):
        return (x - 0.5).reshape(len(x), -1) @ jnp.asarray(weights)

    logits = np.asarray(logits_fn(x))
    y, gap = jnp.asarray(logits.argmax(1)), np.abs(logits[:, 0] - logits[:, 1])
    distance = gap / np.abs(weights[:, 0] - weights[:, 1]).sum()

    @jax.jit
    def attack(key, eps):
        return square(logits_fn, key, x, y, norm="linf", eps=eps, queries=400)

    near = attack(jax.random.key(0), jnp.asarray(distance * 0.999))
    assert near.images.dtype == jnp.float64
    assert not near.success.any()
    assert (np.asarray(near.loss) > -0.75 * gap).all()
    far = attack(jax.random.key(0), jnp.asarray(distance * 3))
    assert far.success.all()
    assert bool(jnp.all(jnp.argmax(logits_fn(far.images), -1) != y))


def test_the_attack_is_its_chunks_and_keeps_the_best_restart(batch, begin, chunk):
    logits_fn, x, y = batch
    keys, eps = jax.random.split(jax.random.key(4), 6), jnp.full(6, EPS["linf"], jnp.float32)
    runs = []
    for restart in range(2):
        run_keys = fold_keys(keys, restart)
        run = begin(run_keys, x, y, eps, norm="linf")
        for first in (0, 20):
            run = chunk(run, run_keys, x, y, eps, first, norm="linf")
        runs.append(run)
    losses = np.array([run.loss for run in runs])
    best = jax.jit(
        lambda keys: square(logits_fn, keys, x, y, norm="linf", eps=eps, queries=40, restarts=2)
    )(keys)
    np.testing.assert_array_equal(best.success, np.any([run.success for run in runs], axis=0))
    stubborn = ~np.asarray(best.success)
    assert len(set(losses.argmax(0)[stubborn])) > 1
    np.testing.assert_array_equal(best.loss[stubborn], losses.max(0)[stubborn])
    images = np.array([run.images for run in runs])[losses.argmax(0), np.arange(6)]
    np.testing.assert_array_equal(best.images[stubborn], images[stubborn])


def broken(x, model):
    flat = jnp.concatenate([x.reshape(len(x), -1)] * 3, 1)[:, :3]
    flat = flat.astype(jnp.bfloat16)  # half precision is one more way to be broken
    return jax.lax.switch(
        model,
        [
            lambda: flat * jnp.nan,
            lambda: jnp.where(flat > 0.5, jnp.nan, flat),
            lambda: jnp.zeros_like(flat),
            lambda: 3e38 * (flat * 10),
        ],
    )


@pytest.mark.parametrize(
    ("norm", "shape"),
    [("linf", (1, 3, 4, 1)), ("l2", (2, 11, 2, 3)), ("l1", (1, 3, 4, 1))],
)
def test_bad_models_and_small_images(key, norm, shape):
    # Constant images: all pixels are rounded the same way, which adds up in a small ball.
    x = jnp.concatenate([jnp.full((1, *shape[1:]), 0.7), jnp.zeros(shape)])
    y = jnp.arange(len(x)) % 3

    @jax.jit
    def attack(key, model, eps):  # the images a constant, which XLA would simplify with
        return square(lambda x: broken(x, model), key, x, y, norm=norm, eps=eps, queries=15)

    for model in range(4):
        for eps in (1e-3, 0.3):
            attacked = attack(key, model, eps)
            assert attacked.images.dtype == attacked.loss.dtype == jnp.float32
            assert_inside(attacked.images, x, np.float32(eps), norm)
    assert bool(jnp.any(attacked.images != x))


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_rounding_stays_inside_of_small_balls(key, norm):
    x = jnp.full((4, 32, 32, 3), 0.7)
    eps = jnp.full(4, 1e-3)

    @jax.jit
    def two_queries(signs, draws, x):
        start = _square_proposals.StartDraws(signs[..., 0], signs)
        start = _square_proposals.start(start, x, eps, norm=norm)
        return start, _square_proposals.propose(draws, 0, start, x, eps, norm=norm)

    signs = jax.random.uniform(key, (4, 5, 5, 3))
    draws = _square_proposals.draw(jax.random.split(key, 4), 0, 3)
    for images in two_queries(signs, draws, x):
        assert_inside(images, x, 1e-3, norm)
        assert size(images - x, norm).min() > 0.3e-3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"norm": "l3"}, "norm must be"),
        ({"eps": -0.1}, "eps must be"),
        ({"eps": np.inf}, "eps must be"),
        ({"eps": np.ones(3)}, "eps must be one number or one per example"),
        ({"queries": -1}, "queries must be"),
        ({"restarts": 0}, "restarts must be"),
        ({"p_init": 0.0}, "p_init must be"),
    ],
)
def test_bad_arguments(batch, key, wrong, message):
    logits_fn, x, y = batch
    with pytest.raises(ValueError, match=message):
        square(logits_fn, key, x, y, **({"norm": "linf", "eps": 0.1} | wrong))
