"""What figures compute."""

import numpy as np

from jaxrobust.drawing import pyplot
from jaxrobust.evaluation import draw_adversarial_images, draw_classes


def test_classes_have_their_names(tmp_path, monkeypatch):
    """Also where a name would be mathematics, or is long."""
    plt = pyplot()
    shown = []
    monkeypatch.setattr(plt, "close", shown.append)
    names = ["cat", "$5", "a very long name of a class"]
    images = np.zeros((3, 4, 4, 1))
    draw_adversarial_images(
        tmp_path / "a.png",
        images,
        images,
        np.array([0, 1, 2]),
        np.array([2, 1, 3]),
        title="t",
        class_names=names,
    )
    titles = [axis.get_title() for axis in shown[0].axes[:6]]
    assert titles == ["cat", r"\$5", "a very long n…", "a very long n…", r"\$5", "class 3"]
    panels = {"clean": {"m": [0.5, 0.25, 1.0]}}
    draw_classes(tmp_path / "c.png", panels, title="t", class_names=names)
    labels = [label.get_text() for label in shown[1].axes[0].get_xticklabels()]
    assert labels == ["cat", r"\$5", "a very long n…"]
