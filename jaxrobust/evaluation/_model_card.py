"""Results in the fields of RobustBench's model cards."""

from collections.abc import Sequence
from typing import Any

from jaxrobust.evaluation._cascade import check_ball
from jaxrobust.inputs import as_count, as_number
from jaxrobust.typing import Norm


def model_card(
    *,
    norm: Norm,
    eps: float,
    clean: float,
    robust: float,
    total: int,
    deviations: Sequence[str] = (),
    unreliable: bool = False,
    **fields: Any,
) -> dict[str, Any]:
    """A card for an evaluation under AutoAttack.

    Args:
      norm: "linf", "l2" or "l1".
      eps: radius in image units.
      clean: clean accuracy in [0, 1].
      robust: accuracy under AutoAttack in [0, 1].
      total: number of test images.
      deviations: from the standard AutoAttack.
      unreliable: whether a check of the evaluation failed.
      **fields: `name`, `authors`, `link`, `architecture`, `dataset` and any other field of a card.
        A `footnote` is added to what the card itself has to say.

    Returns:
      The card. Accuracies are in percent and, like the radius, strings, as the leaderboard has
      them. The footnote names the norm, the number of images and every deviation.

    Raises:
      InputError: if an argument is out of range.

    Example:
      >>> from jaxrobust import evaluation
      >>> card = evaluation.model_card(norm="linf", eps=8 / 255, clean=0.9, robust=0.5, total=200)
      >>> card["eps"], card["autoattack_acc"], card["footnote"]
      ('8/255', '50.00', 'linf; 200 test images')
    """
    check_ball(norm, eps)
    as_count(total, name="total")
    for name, value in (("clean", clean), ("robust", robust)):
        as_number(value, name=name, low=0, high=1, lead=())
    notes = [norm, f"{total:,} test images", *deviations, fields.pop("footnote", "")]
    return {
        "link": "",
        "name": "",
        "authors": "",
        "additional_data": False,
        "number_forward_passes": 1,
        "dataset": "",
        "venue": "Unpublished",
        "architecture": "",
        "eps": _radius(eps),
        "clean_acc": f"{100 * clean:.2f}",
        "reported": "",
        "autoattack_acc": f"{100 * robust:.2f}",
        "unreliable": unreliable,
        "footnote": "; ".join(filter(None, notes)),
        **fields,
    }


def _radius(eps: float) -> str:
    """A short decimal number if it is one, else in steps of 8-bit images."""
    short, steps = f"{eps:.4g}", round(255 * eps)
    if float(short) != eps and steps and abs(255 * eps - steps) < 1e-9:
        return f"{steps}/255"
    return f"{eps:.8g}"
