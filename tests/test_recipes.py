"""Every recipe resolves and is planned for, and takes two steps: data, augmentation, mixing, loss,
optimizer, schedule. The models there are as small as they can be.
"""

import dataclasses
import importlib.util
import itertools
import pathlib

import jax
import numpy as np
import pytest

from tests.train.on_eight_devices import noise_state
from vitjax.data import DataInfo, open_source
from vitjax.data.pipeline import train_batches
from vitjax.data.transforms.augment import parse_augmentation
from vitjax.models import from_config, model_options
from vitjax.plan.plan import known_data
from vitjax.tasks import task_from_config
from vitjax.tasks.classification import LossConfig
from vitjax.train.config import count_steps
from vitjax.train.program import compile_program
from vitjax.train.sharding import make_mesh
from vitjax.training import load_config

ROOT = pathlib.Path(__file__).parent.parent


def runs(file):
    spec = importlib.util.spec_from_file_location(file, ROOT / "configs" / f"{file}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return [f"{file}.py:{name}" for name in module.RUNS]


RECIPES = [*runs("imagenet"), *runs("vit"), *runs("finetune")]
SMALL = {  # hyperparameter → value, of the models that have it: pyramids of two stages
    "width": 16, "depth": 1, "dims": (12, 24), "depths": (1, 1), "num_heads": (1, 2),
    "head_dim": 12, "stem_width": 8, "n_win": 2,
}  # fmt: skip
DISTINCT = {
    "imagenet.py:deit_tiny_distilled": {},
    "imagenet.py:swin_tiny": {},
    "imagenet.py:pvt_tiny": {"sr_ratio": (4, 1)},
    "imagenet.py:pvt_v2_b0": {"sr_ratio": (4, 1), "mlp_ratio": (4.0, 4.0)},
    "imagenet.py:dat_tiny": {"mixer": "window ; deformable", "offset_groups": (1, 1)},
    "imagenet.py:biformer_tiny": {"mixer": "bra(topk=1) ; full_lepe(num_heads=2)"},
    "imagenet.py:debiformer_tiny": {
        "mixer": "bra(topk=1) ; dbra(topk=2)",
        "offset_groups": (1, 2),
        "table_size": (16, 8),
    },
    "imagenet.py:volo_d1": {
        "downsample": (True, False),
        "mixer": "outlook ; full",
        "post_layers": ("ca",),
    },
    "imagenet.py:finetune_swinv2_base_w24": {"pretrained_window_size": 0},
    "vit.py:b16_i21k": {"representation_size": 16},
    "vit.py:augreg_s16_i21k": {},
    "vit.py:scaling_g14": {"patch_size": 16},
    "finetune.py:imagenet": {},
    "photos.py": {},
}


def config_of(recipe, **overrides):
    return load_config(f"{ROOT}/configs/{recipe}", overrides)


@pytest.mark.parametrize("recipe", RECIPES)
def test_resolves(recipe):
    config = config_of(recipe)
    parse_augmentation(config.data.augment)
    images, classes = known_data(config, 1000 if "tfds://oxford" in config.data.train else 0, 10)
    steps = count_steps(config, images)
    assert classes and config.schedule.warmup_steps < steps / 2
    assert from_config(config.model, 1000, config.data.image_size) is not None


def small(recipe, **more):
    """The recipe with a model as small as it can be, on made-up images."""
    name = config_of(recipe).model["name"]
    model = {k: v for k, v in SMALL.items() if k in model_options(name)} | more
    if "width" in model:
        model["num_heads"] = 2
    fields = {f"model.{k}": str(v) for k, v in model.items()} | {
        "model.dtype": "float32",
        "data.image_size": "64",
        "data.batch_size": "4",
        "data.eval_batch_size": "4",
        "mixing.group_size": "2",
        "data.train": "synthetic://?size=16&classes=4&jpeg=1",
    }
    return config_of(recipe, **fields)


def program_of(config, info):
    task = task_from_config(config, info)
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    return task, compile_program(config, task, mesh, 500_000)


def two_steps(recipe, **more):
    config = small(recipe, **more)
    d, source = config.data, open_source(config.data.train, "train")
    task, program = program_of(config, source.info)
    batches = train_batches(
        source, kinds=task.kinds, batch_size=4, augment=d.augment, repeats=d.repeats, num_threads=0
    )
    key, losses = jax.random.key(0), []
    # Drawing a state takes as long to compile as a step: only ViTs' recipes do.
    state = program.init(key) if recipe.startswith("vit") else noise_state(program)
    for batch in itertools.islice(batches, 2):
        state, metrics = program.train_step(state, batch, key)
        losses.append(float(metrics["loss"]))
    assert int(state.step) == 2
    # Heads begin near zero: the first loss is that of four equal classes.
    first = np.log(4) * (1 + config.token_labels.weight)
    if config.loss.name == "sigmoid":
        first = -config.loss.head_bias + 4 * np.log1p(np.exp(config.loss.head_bias))
    np.testing.assert_allclose(losses[0], first, rtol=0.3)
    assert np.isfinite(losses[1])


@pytest.mark.slow
def test_the_baseline_takes_two_steps():
    two_steps("vit.py:s16_90ep", representation_size=16)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", DISTINCT)
def test_takes_two_steps(recipe):
    two_steps(recipe, **DISTINCT[recipe])


def test_several_labels_an_image_are_compiled_for():
    config = small("vit.py:s16_90ep")
    config = dataclasses.replace(config, loss=LossConfig("sigmoid"))
    _, program = program_of(config, DataInfo(tuple("abcd"), "", multi_label=True))
    assert program.batch_spec["label"].shape == (4, 4)
    given = program.state, program.batch_spec, program.key
    _, metrics = jax.eval_shape(program.train_step, *given)
    assert metrics["loss"].shape == ()
