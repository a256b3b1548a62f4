"""TRADES on CIFAR-10 with 500 million generated images, WRN-94-16 (Bartoldson et al.).

eps is 8/255. The recipe of cifar10_bartoldson_wrn82 with a larger network and 10,000 epochs of about
50,000 images. One more particular is left out: the authors' first 6,000 epochs have generated
images only; here 1792 of 2048 images are generated throughout.

The generated images (see cifar10_bartoldson_wrn82) are held in memory on every device, 3 kB an image, so
500 million do not fit: train with as many as do.

Command:  jaxrobust train experiments/cifar10_bartoldson_wrn94.py --set generated.path=/data/mix.npz
          jaxrobust evaluate runs/cifar10_bartoldson_wrn94 --attack autoattack --norm linf --eps 8/255
Cost:     about 3,900 accelerator hours: 1.4e21 operations by the law's count, at 100 TFLOP/s sustained
          (a third of an A100's bfloat16 peak); not measured.
Result:   published: clean 93.68, AutoAttack 73.71.
"""

import pathlib

from jaxrobust.experiment import Experiment, load, replace, use

recipe = load(pathlib.Path(__file__).with_name("cifar10_bartoldson_wrn82.py"))
assert isinstance(recipe, Experiment)
config = replace(
    recipe,
    name="cifar10_bartoldson_wrn94",
    generated=use("generated", path="cifar10_mix_500m.npz", fraction=0.875),
    model=use("wide_resnet", **{**recipe.model.kwargs, "depth": 94, "width": 16}),
    epochs=10_000,
    published={"clean": 93.68, "autoattack": 73.71},
)
