"""What figures compute."""

from jaxrobust.evaluation._figure_plane import Point, pareto_front


def test_the_front_is_what_nothing_beats_in_both():
    def at(clean, robust):
        return Point("", (clean, clean, clean), (robust, robust, robust))

    points = [at(0.9, 0.1), at(0.8, 0.5), at(0.7, 0.4), at(0.6, 0.6), at(0.9, 0.05)]
    assert pareto_front(points) == [3, 1, 0]
    assert pareto_front([]) == []
