"""COCO's recipes resolve: augmentation, schedule, model, rules; and some have published sizes."""

import jax
import pytest

from tests.test_recipes import config_of, runs
from vitjax.abstract import abstract_init
from vitjax.data import DataInfo
from vitjax.data.transforms.augment import parse_augmentation
from vitjax.tasks import task_from_config
from vitjax.train.optimizer import make_schedule, match_rules, trainable_params
from vitjax.train.state import named_leaves

INFO = DataInfo(tuple(map(str, range(80))), "", frozenset(("image", "objects")))
PUBLISHED = {  # millions of parameters
    "mask_rcnn_swin_tiny_1x": 48,
    "retinanet_pvt_tiny_1x": 23.0,
    "mask_rcnn_pvt_v2_b2_3x": 45.3,
}


def test_schedules_and_crops() -> None:
    for recipe in (r for r in runs("detection") if "detr" not in r):
        config = config_of(recipe)
        parse_augmentation(config.data.augment)
        rate = config.schedule.learning_rate
        assert config.epochs == (36 if recipe.endswith("_3x") else 12)
        steps = int(config.epochs) * 7330
        schedule = make_schedule(config.schedule, steps)
        for share, factor in ((0.1, 1), (0.65, 1), (0.8, 0.1), (0.93, 0.01)):
            assert float(schedule(round(share * steps))) == pytest.approx(rate * factor, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "epochs", "drop", "rate", "frozen"),
    [("detr_r50", 300, 200, 1e-4, 53_120), ("deformable_detr_r50", 50, 40, 2e-4, 53_120)],
)
def test_recipes_of_sets(name: str, epochs: int, drop: int, rate: float, frozen: int) -> None:
    """Where the rate falls, and what learns at a tenth of it, or not at all."""
    config = config_of(f"detection.py:{name}")
    parse_augmentation(config.data.augment)
    schedule = make_schedule(config.schedule, 10 * epochs)
    for epoch, factor in ((0, 1), (drop - 1, 1), (drop + 1, 0.1), (epochs - 1, 0.1)):
        assert float(schedule(10 * epoch)) == pytest.approx(rate * factor, rel=1e-5)
    params = abstract_init(task_from_config(config, INFO).init, jax.random.key(0))["params"]
    o = config.optimizer
    rates = named_leaves(match_rules(params, o.learning_rate_rules, "learning_rate_rules"))
    slow = {path for path, factor in rates.items() if factor == 0.1}
    inner = {path for path in slow if not path.startswith("backbone/")}
    assert len(slow - inner) == sum(path.startswith("backbone/") for path in rates)
    assert len(inner) == (2 * 12 + 2 if name.startswith("deformable") else 0)
    trained = trainable_params(params, o.learning_rate_rules, o.freeze).paths
    assert trained is not None
    sizes = {path: leaf.size for path, leaf in named_leaves(params).items()}
    still = sum(size for path, size in sizes.items() if path not in trained)
    first = 9_408 + 212_992  # kernels of the stem and the first stage
    assert still == frozen + first


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_models_have_published_sizes(name: str) -> None:
    config = config_of(f"detection.py:{name}")
    task = task_from_config(config, INFO)
    params = abstract_init(task.init, jax.random.key(0))["params"]
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert size / 1e6 == pytest.approx(PUBLISHED[name], rel=0.01)
    rules = config.optimizer.weight_decay_rules
    decays = named_leaves(match_rules(params, rules, "weight_decay_rules"))
    kept = {path for path, factor in decays.items() if not factor}
    assert bool(kept) == (config.optimizer.weight_decay == 0.05)
    assert all("norm" in path or "relative_position_bias" in path for path in kept)
    assert all(path.startswith("backbone/") for path in kept)


def test_only_one_small_run_has_mosaics() -> None:
    """Off unless it is written; that run has room for four scenes' objects."""
    runs = {name: config_of(f"detection.py:{name}") for name in ("digits", "digits_masks")}
    mosaic = config_of("detection.py:digits_mosaic")
    for config in runs.values():
        assert parse_augmentation(config.data.augment).mosaic is None
    assert parse_augmentation(mosaic.data.augment).mosaic is not None
    assert mosaic.detection.limit == 4 * runs["digits"].detection.limit
    assert mosaic.model == runs["digits"].model
