"""TRADES on CIFAR-10 with 341 million generated images, WRN-82-8 (Bartoldson et al.).

eps is 8/255. Network and number of images are the best for their budget by the authors' scaling law
(`jaxrobust plan FILE --budget FLOPS`). The recipe is Wang et al.'s (cifar10_wang_wrn28) in batches of
2048, of which 1792 are generated, with a learning rate of 0.1. 6,820 epochs of about 50,000 images are
335 million. Besides Wang's two particulars one is left out: the authors see every generated image
once; here they are drawn with replacement.

The generated images are a mix of EDM, DG20 and PFGM++ with an FID of about 1.4. The authors' file is not
published; put the path of your own (`image` and `label` in one npz) into `generated`. It is held in
memory on every device, 3 kB an image, so 341 million do not fit: train with as many as do.

Command:  jaxrobust train experiments/cifar10_bartoldson_wrn82.py --set generated.path=/data/mix.npz
          jaxrobust evaluate runs/cifar10_bartoldson_wrn82 --attack autoattack --norm linf --eps 8/255
Cost:     about 580 accelerator hours: 2.1e20 operations by the law's count, at 100 TFLOP/s sustained
          (a third of an A100's bfloat16 peak); not measured.
Result:   published: clean 93.11, AutoAttack 71.59.
"""

import pathlib

from jaxrobust.experiment import Experiment, load, replace, use

recipe = load(pathlib.Path(__file__).with_name("cifar10_wang_wrn28.py"))
assert isinstance(recipe, Experiment)
config = replace(
    recipe,
    name="cifar10_bartoldson_wrn82",
    generated=use("generated", path="cifar10_mix_341m.npz", fraction=0.875),
    model=use("wide_resnet", **{**recipe.model.kwargs, "depth": 82, "width": 8}),
    learning_rate=use("one_cycle", peak=0.1),
    epochs=6820,
    batch_size=2048,
    published={"clean": 93.11, "autoattack": 71.59},
)
