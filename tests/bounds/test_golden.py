"""Against the reference's numbers: lines, sets, margins of every method and norm."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import bounds, threats
from jaxrobust.bounds import _curves, _silu
from jaxrobust.bounds._region import ball_region
from jaxrobust.bounds._relu import relu_lines
from tests.bounds.nets import forward, operations, params_of

CURVES = {
    "tanh": _curves.TANH,
    "logistic": _curves.LOGISTIC,
    "silu": _silu.SILU,
    "exp": _curves.EXP,
    "square": _curves.SQUARE,
}
FUNCTIONS = {
    "tanh": np.tanh,
    "logistic": lambda x: 1 / (1 + np.exp(-x)),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "exp": np.exp,
    "square": np.square,
}
MLP = ("mlp_relu", "mlp_tanh", "mlp_sigmoid", "mlp_silu")
FILES = dict.fromkeys(MLP, "tiny_mlp") | {"conv_relu": "tiny_conv", "resnet_bn": "tiny_conv"}
FILES |= dict.fromkeys(("maxpool", "maxpool_first", "avgpool"), "tiny_pool")
METHODS = {"ibp": "ibp", "crown-ibp": "crown_ibp", "crown": "crown"}


def lines_of(rule, interval):
    """Slopes and offsets below and above, read off the rows that pass the rule."""
    size = len(interval.lower)
    pull = rule.relax(None, [interval], None)
    one = jnp.eye(size)
    (low,), low_at = pull(one)
    (high,), high_at = pull(-one)
    return np.stack([np.diagonal(x) for x in (low, low_at, -high, -high_at)], 1)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", CURVES)
def test_lines(golden, name):
    data, rule = golden("bounds_units"), CURVES[name]
    interval = bounds.Interval(jnp.asarray(data["l"]), jnp.asarray(data["u"]))
    found, stored = lines_of(rule, interval), data[f"{name}/lines"]
    for end in (data["l"], data["u"]):
        for side in (0, 2):
            values = found[:, side] * end + found[:, side + 1]
            wanted = stored[:, side] * end + stored[:, side + 1]
            np.testing.assert_allclose(values, wanted, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(np.stack(rule.interval(None, interval), 1), data[f"{name}/image"])
    x = data["l"] + (data["u"] - data["l"]) * np.linspace(0, 1, 2001)[:, None]
    y, slack = FUNCTIONS[name](x), 1e-12 * (1 + np.abs(FUNCTIONS[name](x)))
    assert (found[:, 0] * x + found[:, 1] <= y + slack).all()
    assert (found[:, 2] * x + found[:, 3] >= y - slack).all()


@pytest.mark.usefixtures("float64")
def test_lines_of_relu(golden):
    data = golden("bounds_units")
    interval = bounds.Interval(jnp.asarray(data["l"]), jnp.asarray(data["u"]))
    np.testing.assert_allclose(np.stack(relu_lines(interval), 1), data["relu/lines"], atol=1e-12)


@pytest.mark.parametrize("name", CURVES)
def test_lines_in_float32(golden, name):
    """Valid to rounding, also for ends that rounding has crossed."""
    data = golden("bounds_units")
    least, largest = data["l"].astype(np.float32), data["u"].astype(np.float32)
    crossed = np.nextafter(largest, np.float32(np.inf))
    for low, high in ((least, largest), (crossed, largest)):
        found = lines_of(CURVES[name], bounds.Interval(jnp.asarray(low), jnp.asarray(high)))
        x = low + (high - low) * np.linspace(0, 1, 501, dtype=np.float32)[:, None]
        y = FUNCTIONS[name](x.astype(np.float64))
        slack = 4e-6 * (1 + np.abs(y) + np.abs(found[:, [0, 2]]).max(1) * np.abs(x))
        assert (found[:, 0] * x + found[:, 1] <= y + slack).all()
        assert (found[:, 2] * x + found[:, 3] >= y - slack).all()


@pytest.mark.usefixtures("float64")
def test_minima_over_ball_and_box(golden):
    data = golden("bounds_units")
    rows, x = jnp.asarray(data["conc/A"]), jnp.asarray(data["conc/x"])
    cases = [key.removeprefix("conc/") for key in data if key.startswith("conc/l")]
    assert len(cases) == 16
    for case in cases:
        norm, eps, *plain = case.split("_")
        box = None if plain else (0.0, 1.0)
        for i in range(4):
            region = ball_region(norm, x[i], jnp.asarray(float(eps)), box)
            found = region.least(rows[:, i])
            np.testing.assert_allclose(found, data[f"conc/{case}"][:, i], atol=1e-12)


class Tiny:
    """A tiny network of the golden files, and its cases."""

    def __init__(self, golden, name):
        self.data, self.name = golden(f"bounds_{FILES[name]}"), name
        self.params = params_of(self.data, f"{name}/")
        self.ops = operations(self.data, f"{name}/")
        self.x, self.y = jnp.asarray(self["x"], np.float64), self["labels"]
        self.cases = {case["case"]: case for case in json.loads(str(self["cases"]))}

    def __getitem__(self, key):
        return self.data[f"{self.name}/{key}"]

    def stored(self, case, key):
        """Our definition's value where it differs from the reference's."""
        ours = f"{self.name}/{case}/ours/{key}"
        return self.data.get(ours, self.data.get(f"{self.name}/{case}/{key}"))

    def logits(self, x):
        return forward(self.ops, self.params, x)

    def ball(self, case):
        case = self.cases[case]
        threat = getattr(threats, case["norm"])(case["eps"])
        return {"threat": threat, "box": (0.0, 1.0) if case["box"] else None}

    def margins(self, case, method):
        ball = self.ball(case)
        box, threat = ball["box"], ball["threat"]

        def bound(threat):
            return bounds.margins(
                self.logits, self.x, self.y, threat=threat, method=method, box=box
            )

        return np.asarray(jax.jit(bound)(threat))

    def check_sound(self, case, found):
        """No bound is above a margin that some image of the set attains."""
        keys = [key for key in ("attained", "exact") if f"{self.name}/{case}/{key}" in self.data]
        for key in keys:
            attained = self[f"{case}/{key}"]
            assert (found <= attained + 1e-7 * (1 + np.abs(attained))).all()


QUICK = [(name, "linf") for name in FILES if name not in ("mlp_sigmoid", "maxpool")]
QUICK += [("mlp_relu", "l2"), ("mlp_relu", "l1")]
NORMS = ("linf", "l2", "l1")
SLOW = [(name, norm) for name in FILES for norm in NORMS if (name, norm) not in QUICK]
NETS = QUICK + [pytest.param(*case, marks=pytest.mark.slow) for case in SLOW]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("name", "norm"), NETS)
def test_margins(golden, name, norm):
    tiny = Tiny(golden, name)
    for case, method in ((c, m) for c in tiny.cases for m in METHODS):
        if tiny.cases[case]["norm"] == norm:
            found = tiny.margins(case, method)
            np.testing.assert_allclose(found, tiny.stored(case, METHODS[method]), atol=1e-9)
            tiny.check_sound(case, found)
            assert (found[np.arange(len(tiny.y)), tiny.y] == 0).all()


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", FILES)
def test_ibp(golden, name):
    tiny = Tiny(golden, name)
    case = next(c for c in tiny.cases if tiny.cases[c]["norm"] == "linf")
    eps = tiny.cases[case]["eps"]
    low, high = bounds.ibp(tiny.logits, jnp.clip(tiny.x - eps, 0), jnp.clip(tiny.x + eps, None, 1))
    if name == "mlp_silu":  # the reference's are those of a product, and looser
        assert (low >= tiny.stored(case, "ibp_lower")).all()
        assert (high <= tiny.stored(case, "ibp_upper")).all()
        return
    np.testing.assert_allclose(low, tiny.stored(case, "ibp_lower"), atol=1e-9)
    np.testing.assert_allclose(high, tiny.stored(case, "ibp_upper"), atol=1e-9)


ALPHA = [("mlp_relu", "linf_0.15"), ("mlp_silu", "linf_0.15")]
SLOW_ALPHA = [("conv_relu", "l2_0.3")]
SLOW_ALPHA += [
    ("mlp_sigmoid", "linf_0.25"),
    ("mlp_tanh", "l2_0.2_nobox"),
    ("resnet_bn", "linf_0.03"),
]
SLOW_ALPHA += [("maxpool", "linf_0.06"), ("conv_relu", "l1_0.4_nobox"), ("mlp_tanh", "linf_0.15")]
ALPHA += [pytest.param(*case, marks=pytest.mark.slow) for case in SLOW_ALPHA]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("name", "case"), ALPHA)
def test_alpha_crown(golden, name, case):
    tiny = Tiny(golden, name)
    found, crown = (tiny.margins(case, method) for method in ("alpha-crown", "crown"))
    assert (found >= crown - 1e-12).all()
    tiny.check_sound(case, found)
    wanted = tiny.stored(case, "alpha_final")
    start = tiny.stored(case, "crown")
    if name == "mlp_tanh":  # single margins end on both sides; the sum of gains is the measure
        assert (found - start).sum() >= 0.7 * (wanted - start).sum()
    else:
        assert (found >= wanted - 0.1 * (wanted - start) - 2e-3).all()


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["mlp_relu", pytest.param("resnet_bn", marks=pytest.mark.slow)])
def test_intermediate_bounds(golden, name):
    from jaxrobust.bounds._graph import traced
    from jaxrobust.bounds._intermediate import by_crown

    tiny = Tiny(golden, name)
    for case, settings in tiny.cases.items():
        if settings["norm"] != "linf":
            continue
        graph = traced(tiny.logits, tiny.x.shape[1:], tiny.x.dtype, name="fn")
        box = (0.0, 1.0) if settings["box"] else None
        eps = jnp.asarray(settings["eps"])

        def inside(x, graph=graph, box=box, eps=eps):
            found = by_crown(graph, ball_region("linf", x, eps, box))
            return [found[n.variables[0]] for n in graph.nodes if n.rule.relax is not None]

        for i, interval in enumerate(jax.jit(jax.vmap(inside))(tiny.x)):
            stored = tiny[f"{case}/inter/{i}"]
            for found, wanted in zip(interval, stored, strict=True):
                np.testing.assert_allclose(found.reshape(wanted.shape), wanted, atol=1e-9)
