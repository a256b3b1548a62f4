"""Every exported function refuses what cannot be meant, naming the argument: a table of all of them.

The bad values follow from the names of the parameters, so a new export without a row, or one that
does not go through the door, fails here.
"""

import importlib
import inspect
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import attacks, evaluation, losses, objectives, threats
from jaxrobust.inputs import InputError, as_images

KEY = jax.random.key(0)
IMAGES = np.random.default_rng(0).uniform(0.1, 0.9, (4, 3, 3, 1)).astype(np.float32)
LABELS = np.array([0, 1, 2, 3])
LOGITS = np.random.default_rng(1).normal(size=(4, 4)).astype(np.float32)
SCORES, SIGNS = LOGITS[:, :1], np.array([1, -1, 1, -1])
PROBS = np.full((4, 4), 0.25, np.float32)
WEIGHTS = np.random.default_rng(2).normal(size=(9, 4)).astype(np.float32)


def network(images):
    return images.reshape(len(images), -1) @ WEIGHTS


def features(images):
    return network(images), {"stage1": images}


ATTACK = {"logits_fn": network, "key": KEY, "images": IMAGES, "labels": LABELS}
BALL = {**ATTACK, "norm": "linf", "eps": 0.1}
SPATIAL = {**ATTACK, "threat": threats.spatial(10, 1)}
PAIR = {"clean_logits": LOGITS, "adv_logits": LOGITS, "labels": LABELS}
CERTIFIED = {"margins": LOGITS, "adv_logits": LOGITS, "labels": LABELS}
NUTS = {"s": 1.0, "p": 2.0, "c": 0.1, "top_k": 3}

# What each function is called with; the parameters left out keep their defaults.
LINF = {name: value for name, value in BALL.items() if name != "norm"}
CALLS = {
    "losses.binary_boundary": {"clean_logits": SCORES, "adv_logits": SCORES, "lam": 1.0},
    "losses.binary_trades": {
        "clean_logits": SCORES, "adv_logits": SCORES, "labels": SIGNS, "lam": 1.0,
    },
    "losses.exponential": {"logits": SCORES, "labels": SIGNS},
    "losses.hinge": {"logits": SCORES, "labels": SIGNS},
    "losses.cross_entropy": {"logits": LOGITS, "labels": LABELS, "label_smoothing": 0.1},
    "losses.certified": {"margins": LOGITS},
    "losses.mtl_ibp": {**CERTIFIED, "alpha": 0.5},
    "losses.exp_ibp": {**CERTIFIED, "alpha": 0.5},
    "losses.cc_ibp": {**CERTIFIED, "alpha": 0.5},
    "losses.clip_bound": {"name": "js", "clip_loss": 0.1, "num_classes": 4},
    "losses.distance": {"name": "js"},
    "losses.label_distance": {"name": "js"},
    "losses.kl_divergence": {"logits_p": LOGITS, "logits_q": LOGITS},
    "losses.squared_error": {"logits_p": LOGITS, "logits_q": LOGITS},
    "losses.gair_trades": {
        "clean_logits": LOGITS, "adv_kl_logits": LOGITS, "adv_cw_logits": LOGITS,
        "labels": LABELS, "kappa": LABELS, "beta": 6.0, "num_steps": 10, "lam": 0.0,
    },
    "losses.gairat": {
        "adv_logits": LOGITS, "labels": LABELS, "kappa": LABELS, "num_steps": 10, "lam": 0.0,
    },
    "losses.gairat_log_weights": {"kappa": LABELS, "num_steps": 10, "lam": 0.0, "kind": "tanh"},
    "losses.class_prior": {"counts": PROBS, "previous": PROBS},
    "losses.class_prior_counts": {"natural": LOGITS, "labels": LABELS, "temperature": 4.0},
    "losses.gkl": {
        "natural": LOGITS, "adversarial": LOGITS, "labels": LABELS, "class_prior": PROBS,
        "alpha": 4.0, "beta": 20.0, "temperature": 1.0, "gamma": 0.2,
    },
    "losses.prior_weights": {"class_prior": PROBS, "labels": LABELS, "gamma": 0.2},
    "losses.hat": {
        "natural": LOGITS, "adversarial": LOGITS, "helper": LOGITS, "labels": LABELS,
        "helper_labels": LABELS, "beta": 2.5, "gamma": 0.5, "label_smoothing": 0.1,
    },
    "losses.nuclear": {"natural": LOGITS, "adversarial": LOGITS},
    "losses.ramp": {
        "source": LOGITS, "target": LOGITS, "best": LOGITS, "labels": LABELS, "lbd": 5.0,
    },
    "losses.loss_of_run": {"clean_logits": LOGITS, "labels": LABELS},
    "losses.gairat_weights": {"kappa": LABELS, "num_steps": 10, "lam": 0.0, "kind": "tanh"},
    "losses.dlr": {"logits": LOGITS, "labels": LABELS},
    "losses.dlr_targeted": {"logits": LOGITS, "labels": LABELS, "targets": LABELS[::-1]},
    "losses.margin": {"logits": LOGITS, "labels": LABELS},
    "losses.probability_margin": {"logits": LOGITS, "labels": LABELS},
    "losses.mart": {**PAIR, "beta": 6.0},
    "losses.score": {**PAIR, "beta": 4.0, "label_smoothing": 0.1, "clip": 0.0},
    "losses.trades": {**PAIR, "beta": 6.0},
    "attacks.apgd": {**BALL, "steps": 2, "restarts": 1, "eot": 1, "unroll": 1},
    "attacks.fab": {
        **BALL, "steps": 2, "restarts": 1, "alpha_max": 0.1, "eta": 1.05, "beta": 0.9, "unroll": 1,
    },
    "attacks.fmn": {
        **ATTACK, "norm": "linf", "steps": 2, "step_size": 1.0, "final_step_size": 0.1,
        "gamma": 0.05, "final_gamma": 0.001, "targets": LABELS[::-1].copy(), "search_steps": 1,
    },
    "attacks.ddn": {
        **ATTACK, "steps": 2, "gamma": 0.05, "init_norm": 1.0, "levels": 256,
        "targets": LABELS[::-1].copy(),
    },
    "attacks.pdpgd": {
        **ATTACK, "norm": "l2", "steps": 2, "primal_lr": 0.1, "primal_lr_decrease": 0.01,
        "dual_ratio_init": 0.01, "dual_lr": 0.1, "dual_lr_decrease": 0.1, "dual_ema": 0.9,
        "dual_min_ratio": 1e-6, "proximal_steps": 5, "proximal_tolerance": 0.01,
        "targets": LABELS[::-1].copy(),
    },
    "attacks.sigma_zero": {
        **ATTACK, "steps": 2, "step_size": 1.0, "sigma": 1e-3, "threshold": 0.3,
        "threshold_rate": 0.01,
    },
    "attacks.deepfool": {**ATTACK, "norm": "l2", "steps": 2, "overshoot": 0.02},
    "attacks.superdeepfool": {
        **ATTACK, "steps": 1, "deepfool_steps": 2, "overshoot": 0.02, "search_steps": 2,
    },
    "attacks.fgsm": {**ATTACK, "threat": threats.linf(0.1), "step_size": 0.1},
    "attacks.pma": {**LINF, "steps": 2},
    "attacks.cr": {**LINF, "steps": 3, "period": 3, "targets": 1, "restarts": 1},
    "attacks.malt_targets": {
        **{name: BALL[name] for name in ("logits_fn", "images", "labels", "norm")},
        "candidates": 2, "targets": 1,
    },
    "attacks.min_margin": {**BALL, "steps": 2, "targets": 1},
    "attacks.pgd": {
        **ATTACK, "threat": threats.linf(0.1), "steps": 2, "step_size": 0.1, "restarts": 1,
        "momentum": 0.5, "stop_after": 1, "unroll": 1,
    },
    "attacks.spatial_grid": {**SPATIAL, "chunk": 1, "counts": (2, 1, 1)},
    "attacks.average_case": {**SPATIAL, "draws": 1},
    "attacks.worst_of_k": {**SPATIAL, "k": 1, "chunk": 1},
    "attacks.square": {**BALL, "queries": 2, "p_init": 0.8, "restarts": 1},
    "bounds.margins": {
        "logits_fn": network, "images": IMAGES, "labels": LABELS, "threat": threats.linf(0.1),
        "iterations": 1,
    },
    "bounds.crown": {"fn": network, "images": IMAGES, "threat": threats.linf(0.1), "iterations": 1},
    "bounds.ibp": {"fn": network, "lower": IMAGES, "upper": IMAGES},
    "bounds.verified": {"margins": LOGITS},
    "evaluation.model_card": {
        "norm": "linf", "eps": 0.1, "clean": 0.9, "robust": 0.5, "total": 4,
    },
    "evaluation.autoattack": {
        "logits_fn": network, "images": IMAGES, "labels": LABELS, "norm": "linf", "eps": 0.1,
        "version": "custom", "attacks": ["apgd-ce"], "steps": 2, "queries": 2, "batch_size": 4,
        "seed": 0,
    },
    "evaluation.verdict": {
        "logits_fn": network, "images": IMAGES, "labels": LABELS, "norm": "linf", "eps": 0.1,
        "batch_size": 4, "seed": 0,
    },
    "evaluation.distances": {
        "logits_fn": network, "images": IMAGES, "labels": LABELS, "norm": "linf", "batch_size": 4,
        "seed": 0, "attacks": {"fmn": attacks.FMN(threat=threats.linf(1.0), steps=2)},
    },
    "evaluation.minimum_norm_attacks": {"norm": "l2", "attacks": ["ddn"]},
    "evaluation.optimality": {
        "distances": PROBS[0], "best": PROBS[0], "clean_accuracy": 1.0, "area": "exact",
    },
    "evaluation.audit": {
        "logits_fn": network, "images": IMAGES, "labels": LABELS, "norm": "linf", "eps": 0.1,
        "robust": np.ones(4, bool), "batch_size": 4, "seed": 0, "steps": 1, "queries": 1, "rounds": 1,
    },
    "evaluation.bracket": {
        "logits_fn": network, "images": IMAGES, "labels": LABELS, "threat": threats.linf(0.1),
        "batch_size": 4, "seed": 0, "attacks": {}, "costly": (),
    },
    "evaluation.evaluate": {
        "logits_fn": network, "images": IMAGES, "labels": LABELS, "attacks": {}, "batch_size": 4,
        "seed": 0,
    },
    "evaluation.accuracy": {"mask": np.ones(3, bool)},
    "mixing.detector_loss": {"gamma": LOGITS[:, 0], "attacked": LABELS % 2},
    "mixing.mixing_loss": {
        "log_probs": np.log(PROBS), "gamma": LOGITS[:, 0], "labels": LABELS,
        "attacked": LABELS % 2, "bce": 1.0, "ce": 1.0, "product": 1.0, "scale": 1.0,
    },
    "mixing.evading_loss": {"base_loss": LOGITS[:, 0], "gamma": LOGITS[:, 1], "weight": 0.2},
    "mixing.mix": {
        "std_logits": LOGITS, "rob_logits": LOGITS, "alpha": 0.5, "std_scale": 1.0,
        "rob_scale": 1.0,
    },
    "mixing.mix_ratio": {"std_logits": LOGITS, "rob_logits": LOGITS, "ratio": 1.0},
    "mixing.normalize_logits": {"logits": LOGITS, "top_k": 3},
    "mixing.mixednuts_map": {"logits": LOGITS, **NUTS},
    "mixing.mixednuts_mix": {"std_logits": LOGITS, "rob_logits": LOGITS, "alpha": 0.5, **NUTS},
    "mixing.mixednuts_surrogate": {
        "std_logits": LOGITS, "rob_logits": LOGITS, "alpha": 0.5, "raw_share": 0.9, **NUTS,
    },
    "mixing.inherited_margin": {"alpha": 0.8},
    "mixing.certified_radius_inherited": {
        "margin": PROBS[:, 0], "radius": PROBS[:, 0], "alpha": 0.8,
    },
    "mixing.certified_radius_lipschitz": {
        "rob_probs": PROBS, "alpha": 0.8, "lipschitz": 1.0, "labels": LABELS,
    },
    "mixing.certified_radius_smoothing": {
        "lower": PROBS[:, 0], "upper": PROBS[:, 0], "alpha": 0.8, "sigma": 0.5,
    },
    "mixing.smoothed_lipschitz": {"sigma": 0.5},
    "mixing.smoothed_counts": {
        "logits_fn": network, "key": KEY, "images": IMAGES, "sigma": 0.1, "samples": 2,
        "batch_size": 2,
    },
    "mixing.smoothed_bounds": {
        "selection": np.array([[3, 1]]), "counts": np.array([[30, 10]]), "confidence": 0.99,
        "samples": 40,
    },
    "mixing.clopper_pearson": {"counts": np.array([3]), "total": 10, "failure": 0.01},
    "mixing.mixednuts_search": {
        "attacked_right": LOGITS, "clean_wrong": LOGITS, "s": [1.0], "p": [1.0], "c": [0.0],
        "beta": 98.5, "top_k": 3,
    },
    "data.epoch_order": {"key": KEY, "epoch": 0, "size": 10, "batch_size": 4},
    "data.mixed_steps": {"size": 10, "batch_size": 4},
    "data.mixed_order": {
        "key": KEY, "epoch": 0, "size": 10, "generated_size": 10, "batch_size": 4, "fraction": 0.5,
    },
    "data.synthetic": {
        "size": 4, "channels": 1, "num_classes": 3, "train": 4, "test": 4, "seed": 0,
    },
}  # fmt: skip

# Exports that take no arrays and no numbers of the kinds below, or are tried elsewhere.
OTHERS = {
    "mixing.mixed": "mixing/test_mixed.py",
    "mixing.mixed_nuts": "mixing/test_mixed.py",
    "mixing.evading": "mixing/test_adaptive.py",
    "mixing.guided": "takes two networks, which attacks check",
    "bounds.affine": "makes a rule: bounds/test_contract.py",
    "bounds.elementwise": "makes a rule: bounds/test_contract.py",
    "bounds.register": "bounds/test_contract.py",
    "evaluation.pgd_attacks": "makes PGD, whose fields are tried below",
    "evaluation.over_examples": "evaluation/test_examples.py",
    "evaluation.norms_of_attack": "the name of an attack: evaluation/test_distances.py",
    "evaluation.protocol": "evaluation/test_autoattack.py",
    "evaluation.append_row": "a file",
    "evaluation.write_json": "a file",
    "evaluation.provenance": "no argument",
} | {
    f"evaluation.{name}": "takes rows or evaluators: test_evaluators.py"
    for name in ("bars", "numbers_of", "over_seeds", "row_of", "settings_of", "summary")
} | {
    f"evaluation.{name}": "evaluation/test_fronts.py"
    for name in (
        "front", "hypervolume", "robust_at", "compare_fronts", "packed_right", "unpacked_right",
    )
} | {
    f"data.{name}": "data/test_checks.py"
    for name in (
        "cifar10", "cifar100", "mnist", "digits", "npz", "generated", "image_folder",
        "folder_source", "tfds", "tfds_source", "stream", "streamed", "indices_of_steps",
    )
}  # fmt: skip


def exported():
    for room in ("losses", "attacks", "bounds", "evaluation", "mixing", "data"):
        module = importlib.import_module(f"jaxrobust.{room}")
        for name, value in vars(module).items():
            if isinstance(value, types.FunctionType) and not name.startswith(("_", "draw_")):
                yield f"{room}.{name}", value


FUNCTIONS = dict(exported())
INT = r"integer of at least"
COUNT = [(0.5, INT), (-1, INT), (True, INT), (np.array(2.0), INT), ("2", INT)]
NUMBER = [(np.nan, "nan"), ("a", "a"), (None, "None"), (1j, "1j")]
SHARE = [*NUMBER, (-0.1, r"-0\.1"), (1.5, r"1\.5")]
POSITIVE = [*NUMBER, (-1.0, "-1"), (np.inf, "inf")]
INTEGERS = [
    (LABELS[:, None], r"\(4, 1\).*\[:, 0\]"),
    (np.eye(4, dtype=int), r"\(4, 4\).*argmax"),
    (LABELS.astype(np.float32), "float32"),
    (LABELS[:3], r"\(3,\)"),
    (np.r_[LABELS, LABELS], r"\(8,\)"),
    (LABELS + 1, "1 to 4"),
    (LABELS - 2, "-2 to 1"),
    (LABELS.astype(np.int64) + 2**32, str(2**32)),
]
LOGIT_SHAPES = [
    (LOGITS.astype(int), "int"),
    (LOGITS[:, :, None], r"\(4, 4, 1\)|k >= "),
    (LOGITS[:, :1], r"k >= \d|same number of classes"),
    (LOGITS[:3], r"\(3"),
]
SQUARE = [(LOGITS.astype(int), "int"), (LOGITS[:, :3], r"\(4, 3\)"), (LOGITS[0], r"\(4,\)")]
# Bad values by the name of a parameter, with what the message must show of them.
KINDS = {
    "images": [
        (IMAGES * 255, "outside by"),
        (IMAGES - 0.2, "outside by"),
        ((IMAGES * 255).astype(np.uint8), "uint8"),
        (IMAGES[0], r"\(3, 3, 1\)"),
        (IMAGES[..., 0], r"\(4, 3, 3\)"),
        (np.zeros((4, 3, 8, 8), np.float32), "channels last"),
        (IMAGES * np.nan, "finite"),
    ],
    "labels": INTEGERS,
    "targets": INTEGERS,
    "logits_fn": [
        (lambda x: (network(x), {}), "tuple"),
        (lambda x: {"logits": network(x)}, "dict with the keys logits"),
        (lambda x: network(x)[:, 0], r"\(\d+,\)"),
        (lambda x: network(x)[:, :1], r"\(\d+, 1\)"),
        (lambda x: network(x)[None], r"\(1, \d+, 4\)"),
        (lambda x: network(x).astype(jnp.int32), "int32"),
        (lambda x: None, "NoneType"),
    ],
    "eps": [(-0.1, r"-0\.1"), (np.nan, "nan"), (8.0, "8"), (np.ones(3), r"3"), ("a", "a")],
    "step_size": [(-0.1, r"-0\.1"), (np.nan, "nan"), (np.inf, "inf"), (np.ones(3), r"\(3,\)")],
    "distances": [(PROBS, r"\(4, 4\)"), (PROBS[0] * np.nan, "nan"), (-PROBS[0], "-0"), (PROBS[0] > 0, "bool|True")],
    "clean_accuracy": [case for case in SHARE if case[0] is not None],
    "kappa": [(LABELS[:, None], r"\(4, 1\)"), (LABELS + 20, "20|23"), (LABELS - 1, "-1")],
    "norm": [("Linf", "'Linf'"), ("l3", "'l3'")],
    "name": [("cosine", "cosine")],
    "kind": [("Tanh", "Tanh")],
    "mask": [(np.ones(3), "float64"), (np.ones((3, 1), bool), r"\(3, 1\)"), ([], r"\(0,\)")],
    "label_smoothing": SHARE, "clip_loss": SHARE, "alpha": SHARE, "raw_share": SHARE,
    "weight": SHARE, "p_init": SHARE, "alpha_max": SHARE, "fraction": SHARE, "lower": SHARE,
    "upper": SHARE, "confidence": SHARE, "failure": SHARE,
    "beta": [*NUMBER, (-3.0, "-3"), (np.inf, "inf")],
    "power": [*NUMBER, (-1.0, "-1")], "temperature": [*NUMBER, (0.0, "0")], "lbd": POSITIVE,
    "alone": [*INTEGERS[:3], *INTEGERS[5:]], "helper_labels": INTEGERS, "counts": SQUARE, "previous": SQUARE, "class_prior": SQUARE,
    "clip": POSITIVE, "momentum": POSITIVE, "stop_after": POSITIVE[0:1] + POSITIVE[-2:],
    "bce": POSITIVE, "ce": POSITIVE, "product": POSITIVE, "scale": POSITIVE, "std_scale": POSITIVE,
    "rob_scale": POSITIVE, "sigma": POSITIVE, "lipschitz": POSITIVE, "radius": POSITIVE,
    "eta": POSITIVE, "lam": [(np.nan, "nan"), ("a", "a")], "ratio": [*NUMBER, (-1.0, "-1")],
    "s": NUMBER, "p": NUMBER, "c": NUMBER,
    "final_gamma": SHARE, "primal_lr_decrease": SHARE, "dual_ratio_init": SHARE,
    "dual_lr_decrease": SHARE, "dual_ema": SHARE, "dual_min_ratio": SHARE, "threshold": SHARE,
    "init_norm": POSITIVE, "primal_lr": POSITIVE, "dual_lr": POSITIVE, "threshold_rate": POSITIVE,
    "proximal_tolerance": POSITIVE, "overshoot": POSITIVE,
    "attacked": [(LABELS[:, None], r"\(4, 1\)"), (LABELS, "0|3")],
    "gamma": [(LABELS, "int"), (LOGITS[:3, 0], r"\(3,\)")],
    "base_loss": [(LOGITS[:3, 0], r"\(3,\)")],
} | dict.fromkeys(("steps", "rounds", "search_steps", "deepfool_steps", "proximal_steps", "levels", "restarts", "queries", "eot", "unroll", "draws", "k", "chunk", "samples", "batch_size", "num_steps", "num_classes", "top_k", "size", "generated_size", "channels", "train", "test"), COUNT) | dict.fromkeys(("logits", "margins", "logits_p", "logits_q", "clean_logits", "adv_logits", "adv_kl_logits", "adv_cw_logits", "std_logits", "rob_logits", "log_probs", "natural", "adversarial", "helper", "source", "target", "best"), LOGIT_SHAPES)  # fmt: skip
# What one function sees otherwise than its namesakes.
EXCEPT = {
    ("attacks.min_margin", "targets"): "steps",
    ("attacks.cr", "targets"): "steps",
    ("attacks.malt_targets", "targets"): "steps",
    ("attacks.fab", "eps"): "far",
    ("losses.gkl", "gamma"): "power",
    ("losses.hat", "gamma"): "power",
    ("losses.prior_weights", "gamma"): "power",
    ("losses.gkl", "alpha"): "power",
    ("losses.prior_weights", "labels"): "alone",
    ("attacks.spatial_grid", "counts"): None,
    ("mixing.clopper_pearson", "counts"): None,
    ("mixing.smoothed_bounds", "counts"): None,
    ("attacks.fmn", "gamma"): "alpha",
    ("attacks.ddn", "gamma"): "alpha",
    ("attacks.fmn", "final_step_size"): "step_size",
    ("bounds.ibp", "lower"): None,
    ("evaluation.optimality", "best"): "distances",
    ("bounds.ibp", "upper"): None,
    ("mixing.mixednuts_search", "s"): None,
    ("mixing.mixednuts_search", "p"): None,
    ("mixing.mixednuts_search", "c"): None,
}
ONE_LOGIT = ("losses.binary_boundary", "losses.binary_trades", "losses.exponential", "losses.hinge")


def lone_logits(name, parameter, value):
    """Cases that are right for one function: other classes, or none of the labels' batch."""
    if not isinstance(value, np.ndarray) or KINDS.get(parameter) is not LOGIT_SHAPES:
        return False
    others = [
        p
        for p in CALLS[name]
        if KINDS.get(p) is LOGIT_SHAPES or "logits" in p or p in ("labels", "kappa")
    ]
    alone = len(others) <= 1
    return alone and (value.shape in ((3, 4), (4, 4, 1)) and value.shape[-1] > 1)


def cases():
    for name, kwargs in CALLS.items():
        for parameter in kwargs:
            kind = EXCEPT.get((name, parameter), parameter)
            if kind == "far":  # FAB's radius only says what counts, and may be infinite
                kind = "step_size"
            if not isinstance(kind, str) or kind not in KINDS:
                continue
            for number, (value, shown) in enumerate(KINDS[kind]):
                if name in ONE_LOGIT and (parameter == "labels" or "logits" in parameter):
                    continue
                if value is np.inf and (kind, parameter) in (
                    ("step_size", "eps"),
                    ("radius", "radius"),
                ):
                    continue  # what counts for FAB, and a certified radius, may be infinite
                if not lone_logits(name, parameter, value):
                    yield pytest.param(
                        name, parameter, value, shown, id=f"{name}-{parameter}-{number}"
                    )


def named(parameter, value):
    """What a message must name: the argument, or its partner where the two differ in length."""
    other_length = np.shape(value) in ((3, 4), (3,)) if isinstance(value, np.ndarray) else False
    return rf"\b({parameter}{'|labels' if other_length else ''})\b"


def test_every_export_has_a_row():
    missing = set(FUNCTIONS) - set(CALLS) - set(OTHERS)
    assert not missing, f"add to CALLS in {__file__}: {sorted(missing)}"
    assert not (set(CALLS) | set(OTHERS)) - set(FUNCTIONS)


@pytest.mark.parametrize("name", CALLS)
def test_every_checked_parameter_is_in_its_row(name):
    """A parameter of a checked kind that a row leaves out would not be tried."""
    parameters = inspect.signature(FUNCTIONS[name]).parameters
    optional = {
        "sparsity",
        "eps_schedule",
        "stochastic",
        "individual",
        "targets",
        "iterations",
        "noise",
        "lower",
        "upper",
    }
    left_out = set(parameters) & set(KINDS) - set(CALLS[name]) - optional
    assert not left_out, f"{name}: add {sorted(left_out)} to its row"


@pytest.mark.parametrize("name", CALLS)
def test_the_rows_are_right(name):
    FUNCTIONS[name](**CALLS[name])


@pytest.mark.parametrize(("name", "parameter", "value", "shown"), list(cases()))
def test_a_bad_value_is_refused(name, parameter, value, shown):
    with pytest.raises(InputError) as caught:
        FUNCTIONS[name](**CALLS[name] | {parameter: value})
    message = str(caught.value)
    assert re.search(named(parameter, value), message), message
    assert re.search(shown, message), message
    assert "\n" not in message


ARRAYS = {"images", "labels", "targets", "kappa"} | {
    n for n, v in KINDS.items() if v is LOGIT_SHAPES
}


def is_of_shape(value):
    """Whether a bad value can be told by its shape or dtype alone, as under `jit`."""
    good = {(4,): np.integer, (4, 3, 3, 1): np.floating, (4, 4): np.floating}
    return not (
        isinstance(value, np.ndarray)
        and value.shape in good
        and np.issubdtype(value.dtype, good[value.shape])
    )


@pytest.mark.parametrize(
    ("name", "parameter", "value", "shown"),
    [
        case
        for case in cases()
        if case.values[1] in ARRAYS
        and not case.values[0].startswith(("evaluation", "mixing.mixednuts_search"))
        and EXCEPT.get(case.values[:2]) != "steps"  # a number there
        and is_of_shape(case.values[2])
    ],
)
def test_shapes_and_dtypes_are_refused_under_jit_too(name, parameter, value, shown):
    kwargs = CALLS[name]
    traced = {k: kwargs[k] for k in kwargs if k in ARRAYS and isinstance(kwargs[k], np.ndarray)}
    fixed = {k: v for k, v in kwargs.items() if k not in traced}
    with pytest.raises(InputError) as caught:
        jax.eval_shape(lambda t: FUNCTIONS[name](**t, **fixed), traced | {parameter: value})
    assert re.search(named(parameter, value), str(caught.value))


RECIPES = {
    name: getattr(objectives, name)
    for name in objectives.__all__
    if name[0].islower() and inspect.isclass(getattr(objectives, name))
}
RANGES = {
    "beta": [(-3, "-3"), (np.nan, "nan")], "steps": COUNT, "copies": COUNT,
    "step_size": [(-0.1, r"-0\.1"), (np.inf, "inf")], "clip": [(-1.0, "-1")],
    "label_smoothing": SHARE[-2:], "weight": SHARE[-2:], "clip_loss": [(1.0, "1"), (-0.1, "-0.1")],
    "tau": [(-1, "-1")], "lam": [(np.nan, "nan")], "bce": [(-1.0, "-1")], "ce": [(-1.0, "-1")],
    "product": [(-1.0, "-1")], "clean_scale": [(-1.0, "-1")], "clean_passes": [(3, "3")],
    "attack_statistics": [("train", "train")], "start": [("zero", "zero")],
    "attack_target": [("adv", "adv")], "kind": [("relu", "relu")], "attack": [("fab", "fab")],
    "distance": [("cosine", "cosine")], "clip_clean": [], "noise": [(-1.0, "-1")],
    "alpha": [(-1.0, "-1")], "gamma": [(-1.0, "-1")], "attack_beta": [(-1.0, "-1")],
    "h": [(-1.0, "-1")], "lbd": [(-1.0, "-1")], "temperature": [(0.0, "0")], "every": COUNT,
    "momentum": SHARE[-2:], "min_mask": SHARE[-2:], "max_mask": SHARE[-2:], "reset": COUNT,
    "step_sizes": [({"linf": -0.1}, r"-0\.1")], "norms": [(("l3",), "l3")],
    "kappa": SHARE[-2:], "shrink": SHARE[-2:], "restarts": COUNT, "attack_scale": [(-1.0, "-1")],
    "relative_step": [(-1.0, "-1")],
}  # fmt: skip


def test_every_recipe_is_in_one_group():
    grouped = [name for group in objectives.GROUPS.values() for name in group]
    assert sorted(grouped) == sorted(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_objectives_refuse_what_cannot_be_meant(name):
    recipe = RECIPES[name]
    for parameter in inspect.signature(recipe).parameters:
        for value, shown in RANGES[parameter]:
            with pytest.raises(ValueError, match=parameter) as caught:
                recipe(**{parameter: value})
            message = str(caught.value)
            assert re.search(rf"\b{parameter}\b.*{shown}", message), message


@pytest.mark.parametrize("name", sorted(set(RECIPES) - {"standard", "adaptive_smoothing"}))
def test_objectives_check_their_batch(name):
    def two(images):
        return network(images)[:, :2]

    logits_fn, labels = (two, LABELS % 2) if name == "binary_trades" else (network, LABELS)
    if getattr(RECIPES[name](), "attack_statistics", "") == "update":
        logits_fn = objectives.Stateful(lambda x, state: (network(x), state), {})
    for images, classes, parameter in (
        (IMAGES, labels[:, None], "labels"),
        (IMAGES, labels[:2], "labels"),
        (IMAGES, labels.astype(np.float32), "labels"),
        (IMAGES * 255, labels, "images"),
        (IMAGES[0], labels, "images"),
        ((IMAGES * 255).astype(np.uint8), labels, "images"),
    ):
        batch = objectives.Batch(jnp.asarray(images), jnp.asarray(classes))
        steps = {"steps": 1} if "steps" in inspect.signature(RECIPES[name]).parameters else {}
        with pytest.raises(ValueError, match=parameter):
            RECIPES[name](**steps).inner(logits_fn, KEY, batch, threats.linf(0.1))


@pytest.mark.parametrize("parameter", ["steps", "restarts"])
def test_bound_attacks_check_their_counts(parameter):
    for value in (-1, 0.5, True):
        with pytest.raises(ValueError, match=rf"{parameter} must be an integer"):
            evaluation.PGD(threat=threats.linf(0.1), **{parameter: value})


def test_a_traced_number_must_be_a_number():
    """Its value is not known yet, its dtype is."""
    with pytest.raises(ValueError, match="eps must be .* got bool"):
        jax.jit(lambda eps: threats.linf(eps).eps)(jnp.array(True))


def test_rounding_is_clipped_and_more_is_shown():
    images = IMAGES.copy()
    images[0, 0, 0, 0] = np.nextafter(np.float32(1), np.float32(2))
    result = evaluation.evaluate(network, images, LABELS, attacks={})
    assert result.clean.total == 4
    images[0, 0, 0, 0] = 1.00001
    with pytest.raises(ValueError, match=r"outside by 1e-05"):
        evaluation.evaluate(network, images, LABELS, attacks={})


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int64, np.uint32])
def test_labels_of_any_width_are_the_same_labels(dtype):
    logits = 10.0 * np.eye(1000, dtype=np.float32)[[3, 3 + 256]]
    labels = np.array([3, 3], dtype)
    assert losses.margin(logits, labels).tolist() == [-10.0, 10.0]
    assert losses.cross_entropy(logits, labels)[1] > 9


@pytest.mark.parametrize(
    "name",
    [f"evaluation.{name}" for name in ("evaluate", "autoattack", "audit", "verdict", "distances")],
)
def test_a_data_set_without_images_is_refused(name):
    """An accuracy of nothing is no number; attacks on an empty batch return one."""
    empty = {"images": IMAGES[:0], "labels": LABELS[:0]}
    with pytest.raises(InputError, match=r"images must be \[n, h, w, c\] with n >= 1"):
        FUNCTIONS[name](**CALLS[name] | empty)


@pytest.mark.parametrize(
    ("labels", "shown"),
    [
        (np.full((4, 4), 0.2, np.float32), "sums from 0.8 to 0.8"),
        (np.eye(4, dtype=np.float32) * 3 - 0.5, "values from -0.5 to 2.5"),
        (np.full((4, 3), 1 / 3, np.float32), r"the same number of classes.*\(4, 3\)"),
    ],
)
@pytest.mark.parametrize("name", ["losses.cross_entropy", "attacks.pgd"])
def test_soft_labels_are_probabilities_of_the_classes(name, labels, shown):
    with pytest.raises(InputError, match=rf"labels.*{shown}"):
        FUNCTIONS[name](**CALLS[name] | {"labels": labels})


def test_soft_labels_of_other_classes_are_seen_without_a_loss_that_looks():
    with pytest.raises(InputError, match=r"the same number of classes.*\(4, 3\)"):
        FUNCTIONS["attacks.pgd"](
            **CALLS["attacks.pgd"]
            | {
                "labels": np.full((4, 3), 1 / 3, np.float32),
                "loss": lambda logits, labels: logits[:, 0],
            }
        )


WITH_A_LOSS = ("pgd", "fgsm", "spatial_grid", "worst_of_k", "average_case", "apgd")


@pytest.mark.parametrize("name", WITH_A_LOSS)
def test_what_is_no_function_is_refused_by_its_name(name):
    call, given = FUNCTIONS[f"attacks.{name}"], CALLS[f"attacks.{name}"]
    with pytest.raises(InputError, match=r"loss must be .*got 'hinge'"):
        call(**given | {"loss": "hinge"})
    with pytest.raises(InputError, match=r"logits_fn must be a function.*got None"):
        call(**given | {"logits_fn": None})


@pytest.mark.parametrize("name", sorted({n for n in CALLS if not n.startswith("data.")}))
def test_a_masked_array_is_refused(name):
    """JAX takes the numbers under the mask for numbers like all others."""
    for parameter, value in CALLS[name].items():
        if isinstance(value, np.ndarray) and (name, parameter) != ("evaluation.audit", "robust"):
            with pytest.raises(ValueError, match="mask"):  # the door's, or JAX's own
                FUNCTIONS[name](**CALLS[name] | {parameter: np.ma.masked_array(value, value > 0)})


@pytest.mark.parametrize(
    ("shape", "fits"),
    [
        ((4, 3, 32, 32), False), ((4, 6, 32, 32), False), ((4, 1, 28, 28), False),
        ((4, 3, 24, 32), False), ((4, 1, 24, 32), False), ((4, 1, 32, 24), False),
        ((4, 1, 128, 22), True), ((4, 1, 16, 8), True), ((4, 128, 1, 22), True),
        ((4, 32, 32, 6), True), ((4, 9, 9, 100), True), ((4, 2, 2, 3), True), ((4, 8, 8, 8), True),
    ],
)  # fmt: skip
def test_channels_come_last_and_signals_are_no_images(shape, fits):
    images = np.zeros(shape, np.float32)
    if fits:
        assert as_images(images) is images
    else:
        with pytest.raises(InputError, match="channels last"):
            as_images(images)


@pytest.mark.parametrize(
    ("start", "shown"),
    [
        (IMAGES[:, 0], r"float32 of shape \(4, 3, 3, 1\), got float32 of shape \(4, 3, 1\)"),
        (IMAGES[:1], r"got float32 of shape \(1, 3, 3, 1\)"),
        (IMAGES[None], r"got float32 of shape \(1, 4, 3, 3, 1\)"),
        ((IMAGES * 255).astype(np.uint8), "got uint8"),
        ({"delta": IMAGES}, "perturbation of the threat"),
        (IMAGES * np.nan, "finite"),
    ],
)
def test_a_start_is_a_perturbation_of_the_threat(start, shown):
    with pytest.raises(InputError, match=rf"start.*{shown}"):
        FUNCTIONS["attacks.pgd"](**CALLS["attacks.pgd"] | {"start": start})
