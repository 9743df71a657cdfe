"""Plain ViTs: the 90-epoch baseline on ImageNet-1k, and pretraining on ImageNet-21k.

  :s16_90ep   ViT-S/16, ImageNet-1k, 90 epochs, 224: 76.5 % (arXiv:2205.01580). Global average
              pooling, fixed 2-D sine positions, a hidden layer in the head, RandAugment (2, 10),
              mixup 0.2, batch 1,024, 10,000 steps of warm-up, decay 1e-4 a step at the full rate;
              under seven hours on a TPU v3-8, as the authors say. `:s16_300ep` is the same for
              longer: 80.0 %.
  :b16_i21k   ViT-B/16, ImageNet-21k, 90 epochs, 224 (arXiv:2010.11929, table 3): Adam, batch
              4,096, linear decay from 1e-3, weight decay 0.03, dropout 0.1, a hidden layer in the
              head. Fine-tuned at 384 on ImageNet-1k: 83.97 % (table 5).
  :l16_i21k   the same for ViT-L/16: 85.15 % after fine-tuning.
  :augreg_s16_i21k   ViT-S/16 as in AugReg (arXiv:2106.10270): 300 epochs, sigmoid loss, with what
              the authors' recommended checkpoint was trained with: RandAugment (2, 0), decay 0.03.
              `:augreg_b16_i21k` has (2, 15), mixup 0.2 and decay 0.1, `:augreg_l16_i21k` (2, 20),
              mixup 0.5 and decay 0.1. 83.73, 85.49 and 85.59 % after fine-tuning at 384.
  :scaling_g14   ViT-g/14 in the manner of Scaling Vision Transformers (arXiv:2106.04560), for a
              data set of your own in the place of JFT-3B: Adafactor with a bfloat16 momentum,
              reciprocal square root schedule with a cooldown, decay 0.03 of the body and 3 of the
              head, sigmoid loss, attention pooling.

Command: `python train.py --config=configs/vit.py:s16_90ep --workdir=runs/s16
'--config.data.train=tfds://imagenet2012?data_dir=/data'`; cost:
`vitjax plan --config=configs/vit.py:s16_90ep --topology=v3-8`. For ImageNet-21k give
`--config.data.train` the data set's URI; its test split is cut off the training images. None of
these runs has been made with this code yet.
"""

from typing import Any

AUGMENT = "crop(area=(0.05, 1.0), interpolation='bilinear') | flip{more}"
RAND_AUGMENT = " | randaugment(n=2, m={m}, mstd=0.0, mmax={m}, p=1.0)"  # magnitudes beyond 10 go on


def _config(name: str, batch: int, epochs: float, **parts: Any) -> dict[str, Any]:
    """What all of them share: pixels from -1 to 1, bfloat16, clipping at 1."""
    data = dict(
        train="tfds://imagenet2012",
        train_split="train[:99%]",
        test_split="validation",
        image_size=224,
        batch_size=batch,
        eval_batch_size=1024,
        eval_crop=0.875,
        num_threads=16,
        on_bad_image="skip",
        max_bad_images=100,
    )
    return dict(
        epochs=epochs,
        model=dict(name=name, dtype="bfloat16", **parts.get("model", {})),
        data=data | parts["data"],
        loss=parts.get("loss", {}),
        mixing=parts.get("mixing", {}),
        optimizer=dict(clip_norm=1.0, **parts["optimizer"]),
        schedule=parts["schedule"],
        eval_every=5000,
        checkpoint_every=1000,
    )


def _baseline(epochs: float) -> dict[str, Any]:
    return _config(
        "vit_s16",
        1024,
        epochs,
        model=dict(pool="gap", position="sincos2d", representation_size=384),
        data=dict(augment=AUGMENT.format(more=RAND_AUGMENT.format(m=10))),
        mixing=dict(mixup=0.2),
        optimizer=dict(weight_decay=0.1, mu_dtype="bfloat16"),
        schedule=dict(learning_rate=1e-3, warmup_steps=10_000),
    )


IMAGENET_21K = dict(train="tfds://imagenet21k", train_split="train[1%:]", test_split="train[:1%]")


SIGMOID = dict(name="sigmoid", head_bias=-10.0)


def _pretraining(name: str, width: int) -> dict[str, Any]:
    return _config(
        name,
        4096,
        90.0,
        model=dict(drop_rate=0.1, representation_size=width),
        data=dict(IMAGENET_21K, augment=AUGMENT.format(more="")),
        optimizer=dict(weight_decay=0.03),
        schedule=dict(name="linear", learning_rate=1e-3, warmup_steps=10_000),
    )


def _augreg(name: str, magnitude: int, mixup: float, weight_decay: float) -> dict[str, Any]:
    return _config(
        name,
        4096,
        300.0,
        data=dict(IMAGENET_21K, augment=AUGMENT.format(more=RAND_AUGMENT.format(m=magnitude))),
        loss=SIGMOID,
        mixing=dict(mixup=mixup),
        optimizer=dict(weight_decay=weight_decay, mu_dtype="bfloat16"),
        schedule=dict(learning_rate=1e-3, warmup_steps=10_000),
    )


def _scaling() -> dict[str, Any]:
    rules = (("head/kernel", 100.0), (".*/kernel", 1.0), (".*", 0.0))
    config = _config(
        "vit_g14", 16_384, 0.0,
        model=dict(pool="map", scan=True, remat=True),
        data=dict(IMAGENET_21K, augment=AUGMENT.format(more="")),
        loss=SIGMOID,
        optimizer=dict(name="adafactor", mu_dtype="bfloat16", weight_decay=0.03,
                       weight_decay_rules=rules),
        schedule=dict(name="rsqrt", learning_rate=8e-4, warmup_steps=10_000, timescale=10_000,
                      cooldown_steps=50_000),
    )  # fmt: skip
    return config | dict(steps=1_000_000)


RUNS = {
    "s16_90ep": lambda: _baseline(90.0),
    "s16_300ep": lambda: _baseline(300.0),
    "b16_i21k": lambda: _pretraining("vit_b16", 768),
    "l16_i21k": lambda: _pretraining("vit_l16", 1024),
    "augreg_s16_i21k": lambda: _augreg("vit_s16", 0, 0.0, 0.03),
    "augreg_b16_i21k": lambda: _augreg("vit_b16", 15, 0.2, 0.1),
    "augreg_l16_i21k": lambda: _augreg("vit_l16", 20, 0.5, 0.1),
    "scaling_g14": _scaling,
}


def get_config(name: str = "s16_90ep") -> dict[str, Any]:
    if name not in RUNS:
        raise ValueError(f"No run {name!r} in configs/vit.py; choose from {', '.join(RUNS)}.")
    return RUNS[name]()
