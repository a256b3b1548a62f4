"""What figures compute."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from jaxrobust.evaluation import draw_adversarial_images, draw_bars, draw_classes


def test_classes_have_their_names(tmp_path, monkeypatch):
    """Also where a name would be mathematics, or is long."""
    shown = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: shown.append(figure))
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
    assert titles == ["cat", r"\$5", "a very long n…", "a very long n…", r"\$5", "predicted 3"]
    panels = {"clean": {"m": [0.5, 0.25, 1.0]}}
    draw_classes(tmp_path / "c.png", panels, title="t", class_names=names)
    labels = [label.get_text() for label in shown[1].axes[0].get_xticklabels()]
    assert labels == ["cat", r"\$5", "a very long n…"]


def test_drawing_changes_no_backend_and_leaves_no_figure(tmp_path):
    """A notebook goes on showing the figures of its own cells."""
    before = matplotlib.get_backend()
    try:
        matplotlib.use("svg")
        draw_bars(tmp_path / "bars.png", {"clean": {"a": 0.5}}, title="t", label="accuracy")
        assert matplotlib.get_backend() == "svg"
        assert plt.get_fignums() == []
    finally:
        matplotlib.use(before)
    assert (tmp_path / "bars.png").read_bytes().startswith(b"\x89PNG")
