"""Fine-tuning on smaller data sets, as the ViT paper does for its table 2 (arXiv:2010.11929).

  :cifar10, :cifar100   10,000 steps          :pets, :flowers   500 steps
  :imagenet             20,000 steps

Command: `python train.py --config=configs/finetune.py:pets --workdir=runs/pets
--config.init=runs/pretrained`. `init` is a file of published weights, an Orbax folder, another run
of ours, or hf://owner/repo; the head is new, positions are interpolated to 384 pixels, both said
aloud. Another model: `--config.model.name=vit_l16`. Pixels are normalised as the weights want it:
`mean` and `std` are empty here, and read from what stands beside `init`, or from its layout.

The recipe (table 4 and appendix B.1.1 there): SGD with momentum 0.9, batch 512, cosine decay, no
weight decay, clipping at 1, 384 pixels, random crops of 5 to 100 % of the area, flips; evaluation
squeezes the whole image into the square, as the authors' code does. The paper chooses the learning
rate on a held-out part of the training images from 0.001, 0.003, 0.01, 0.03 (ImageNet: 0.003 to
0.06):
`--config.data.train_split='train[:90%]' --config.data.test_split='train[90%:]'`.

Expected of ViT-B/16 from ImageNet-21k (table 5 there): CIFAR-10 98.95 %, CIFAR-100 91.67 %, Pets
94.43 %, Flowers 99.38 %, ImageNet 83.97 %. Hardware: one v3-8 or a larger GPU. None of these runs
has been made with this code yet.

The paper's table 2, at 512 pixels, has averaged parameters besides (Polyak, 0.9999):
`--config.optimizer.ema=0.9999 --config.optimizer.ema_warmup=False`.

Swin's fine-tuning is in configs/imagenet.py. A linear probe trains the head alone:
`--config.optimizer.freeze='("(?!head/).*",)'`.
"""

from typing import Any

RUNS = {  # name → data set, steps, learning rate
    "cifar10": ("tfds://cifar10", 10_000, 0.01),
    "cifar100": ("tfds://cifar100", 10_000, 0.01),
    "pets": ("tfds://oxford_iiit_pet", 500, 0.003),
    "flowers": ("tfds://oxford_flowers102", 500, 0.01),
    "imagenet": ("tfds://imagenet2012", 20_000, 0.03),
}


def get_config(name: str = "cifar10") -> dict[str, Any]:
    if name not in RUNS:
        raise ValueError(f"No run {name!r} in configs/finetune.py; choose from {', '.join(RUNS)}.")
    uri, steps, learning_rate = RUNS[name]
    return dict(
        steps=steps,
        model=dict(name="vit_b16", dtype="bfloat16"),
        data=dict(
            train=uri,
            test_split="validation" if name == "imagenet" else "test",
            image_size=384,
            batch_size=512,
            eval_batch_size=512,
            eval_crop=0.0,
            interpolation="bilinear",
            mean=(),
            std=(),
            augment="crop(area=(0.05, 1.0), interpolation='bilinear') | flip",
            num_threads=16,
        ),
        optimizer=dict(
            name="sgd",
            b1=0.9,
            mu_dtype="bfloat16",
            clip_norm=1.0,
        ),
        schedule=dict(
            name="cosine", learning_rate=learning_rate, warmup_steps=min(500, steps // 5)
        ),
        eval_every=max(steps // 10, 100),
        checkpoint_every=max(steps // 10, 100),
    )
