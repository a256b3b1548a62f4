"""The least counts of objectives: 1 is taken and 0 refused, whoever has the field."""

import dataclasses

import pytest

from jaxrobust import objectives
from jaxrobust.inputs import InputError
from jaxrobust.objectives._ranges import COUNTS

HAVE = [
    (kind.__name__, field.name, kind)
    for kind in vars(objectives).values()
    if dataclasses.is_dataclass(kind)
    for field in dataclasses.fields(kind)
    if field.name in COUNTS
]


def test_every_count_is_tried():
    assert {name for _, name, _ in HAVE} == set(COUNTS)


@pytest.mark.parametrize(("owner", "name", "kind"), HAVE)
def test_counts_start_at_one(owner, name, kind):
    assert getattr(kind(**{name: 1}), name) == 1
    for wrong in (0, -1, 1.5):
        with pytest.raises(InputError, match=f"{name} must be"):
            kind(**{name: wrong})
