"""The table of runs that share a program."""

import pytest

from jaxrobust.bench import many_table


@pytest.mark.slow
def test_a_row_per_form_with_equal_figures():
    rows = many_table(betas=2, seeds=1, epochs=1, width=2, batch_size=512)
    assert [row.form for row in rows] == [
        "one after the other",
        "one after the other, cached",
        "one program, a loop",
        "one program, vmap",
    ]
    assert {row.runs for row in rows} == {2}
    assert all(row.ratio == row.seconds / rows[0].seconds for row in rows)
    assert all(row.loss_difference < 1e-4 for row in rows)
    assert all(row.accuracy_difference < 0.02 for row in rows)
