"""An evaluator with a figure."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxrobust.evaluation import Curve, Number, Row, accuracy, draw_curves


@dataclass(frozen=True, kw_only=True)
class Noise:
    """The accuracy under Gaussian noise of several standard deviations."""

    sigmas: tuple[float, ...] = (0.1, 0.2, 0.3)

    def __call__(self, logits_fn, dataset, *, key, work):
        def right(keys, images, labels):
            noise = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:]))(keys)
            noisy = [jnp.clip(images + sigma * noise, 0, 1) for sigma in self.sigmas]
            return jnp.stack([logits_fn(x).argmax(-1) == labels for x in noisy], -1)

        found = work.over(right, key, *dataset.floats("test"), what="noise")
        columns = zip(self.sigmas, found.T, strict=True)
        return Row(
            "Gaussian noise", tuple(Number(f"noise {s:g}", *accuracy(r)) for s, r in columns)
        )

    def draw(self, folder, rows, title):
        values = {name: [n.value for n in seeds[0].numbers] for name, seeds in rows.items()}
        curves = {name: Curve(self.sigmas, found) for name, found in values.items()}
        path, axis = folder / "noise.png", "standard deviation of the noise"
        draw_curves(path, {"accuracy (%)": curves}, title=title, axis_label=axis)
        return [path]
