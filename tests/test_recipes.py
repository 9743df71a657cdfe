"""Every recipe resolves, and its whole step traces: model, mixing, optimizer, schedule."""

import importlib.util
import pathlib

import jax
import pytest

from vitjax.data.augment import parse_augmentation
from vitjax.models import from_config, model_options
from vitjax.tasks import classification
from vitjax.train.config import load_config
from vitjax.train.setup import make_setup
from vitjax.train.sharding import make_mesh

ROOT = pathlib.Path(__file__).parent.parent


def runs(file):
    spec = importlib.util.spec_from_file_location(file, ROOT / "configs" / f"{file}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return [f"{file}.py:{name}" for name in module.RUNS]


RECIPES = [*runs("imagenet"), *runs("vit")]
TRACED = ["imagenet.py:deit_tiny", "imagenet.py:swin_tiny", "imagenet.py:biformer_tiny",
          "imagenet.py:debiformer_tiny", "imagenet.py:dat_tiny", "imagenet.py:pvt_tiny",
          "imagenet.py:swinv2_tiny_w8", "vit.py:b16_i21k"]  # fmt: skip


def config_of(recipe, **overrides):
    return load_config(f"{ROOT}/configs/{recipe}", overrides, model_options)


@pytest.mark.parametrize("recipe", RECIPES)
def test_resolves(recipe):
    config = config_of(recipe)
    parse_augmentation(config.data.augment)
    assert from_config(config.model.to_dict(), 1000, config.data.image_size) is not None


def step_of(recipe):
    config = config_of(recipe, **{"data.batch_size": "4", "data.eval_batch_size": "4"})
    model = from_config(config.model.to_dict(), 10, config.data.image_size)
    task = classification.from_config(config, model, 10)
    setup = make_setup(config, task, make_mesh(config.mesh, jax.devices()[:1]), 500_000)
    return setup, jax.eval_shape(setup.train_step, setup.state, setup.batch)


def test_the_baseline_traces():
    setup, (state, metrics) = step_of("vit.py:s16_90ep")
    assert jax.tree.structure(state) == jax.tree.structure(setup.state)
    assert metrics["loss"].shape == ()


@pytest.mark.slow
@pytest.mark.parametrize("recipe", TRACED)
def test_traces(recipe):
    setup, (state, _) = step_of(recipe)
    assert jax.tree.structure(state) == jax.tree.structure(setup.state)
