"""Every recipe of dense prediction resolves: model, task, schedule and rules, in shapes alone; and
a small one takes two steps.
"""

import dataclasses
import itertools
import math
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.test_recipes import config_of, runs
from tests.train.test_sharding import shallow
from vitjax.abstract import abstract_init
from vitjax.data import DataInfo, open_source
from vitjax.data.codecs.maps import IGNORE
from vitjax.data.pipeline import train_batches
from vitjax.data.transforms.augment import parse_augmentation
from vitjax.models import create_model, from_config
from vitjax.task import Task
from vitjax.tasks import task_from_config
from vitjax.train.config import count_steps
from vitjax.train.optimizer import fitting_rules, make_optimizer, make_schedule, match_rules
from vitjax.train.program import compile_program
from vitjax.train.sharding import make_mesh
from vitjax.train.state import named_leaves

DENSE = [*runs("ade20k"), *runs("cityscapes"), *runs("restoration")]
CLASSES = {"ade20k.py": 150, "cityscapes.py": 19}


def info_of(recipe: str) -> DataInfo:
    """Build the info of a recipe's data, without the data."""
    classes = CLASSES.get(recipe.split(":")[0], 0)
    names = tuple(map(str, range(classes)))
    return DataInfo(names, "", frozenset(("image", "map" if classes else "target")))


def abstract_params(model: tuple[tuple[str, Any], ...], task: Task) -> Any:
    """Trace a task's parameters, once for all recipes of a model."""
    if model not in PARAMS:
        PARAMS[model] = abstract_init(task.init, jax.random.key(0))["params"]
    return PARAMS[model]


PARAMS: dict[Any, Any] = {}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", DENSE)
def test_resolves(recipe: str) -> None:
    config = config_of(recipe)
    o = config.optimizer
    parse_augmentation(config.data.augment)
    task_from_config(config, info_of(recipe))
    # The parameters of further blocks have the same names.
    config = dataclasses.replace(config, model={**config.model, **shallow(**config.model)})
    task = task_from_config(config, info_of(recipe))
    params = abstract_params(tuple(sorted(config.model.items())), task)
    rules = o.weight_decay_rules or fitting_rules(params, task.decay_rules)
    steps = count_steps(config, 0)
    schedule = make_schedule(config.schedule, steps)
    rate = config.schedule.learning_rate
    highest = max(float(schedule(t)) for t in (config.schedule.warmup_steps, 0))
    assert highest == pytest.approx(rate, rel=0.02)  # a warm-up may replace the first steps
    assert float(schedule(steps - 1)) < rate / 5
    make_optimizer(o, schedule, params, decay_rules=rules)
    decays = named_leaves(match_rules(params, rules, "weight_decay_rules"))
    rates = named_leaves(match_rules(params, o.learning_rate_rules, "learning_rate_rules"))
    ten = {path.split("/")[0].split("_")[0] for path, factor in rates.items() if factor == 10}
    if "segformer" in recipe:
        assert ten == {"head"}
    elif "setr" in recipe:
        assert ten == {"head", "auxiliary"} and not o.weight_decay
    else:
        assert not ten
    if "upernet" in recipe or "segformer" in recipe:
        assert not any(d for path, d in decays.items() if "/norm1/" in path)
        assert all(d for path, d in decays.items() if path.endswith("kernel"))
    elif "setr" not in recipe:
        assert all(decays.values())


def test_backbones_are_those_of_the_menu() -> None:
    """A model's name alone has its authors' drop path, regions and numbers of them too."""
    for recipe in DENSE:
        if "upernet" in recipe or "semantic_fpn" in recipe:
            model = config_of(recipe).model
            found = from_config({**model, "dtype": "float32"}, 150, 512)
            assert found.encoder == create_model(model["name"], 150, image_size=512).encoder, recipe


@pytest.mark.parametrize("recipe", [r for r in DENSE if "restoration" not in r])
def test_canvases_hold_what_is_evaluated(recipe: str) -> None:
    """A 4:3 image at its short side, or Cityscapes' size; windows as the authors' strides."""
    config = config_of(recipe)
    kind: Any = task_from_config(config, info_of(recipe)).eval_kinds["image"]
    s, side = config.segmentation, config.data.image_size
    if "cityscapes" in recipe:
        assert kind.size(1024, 2048) == (1024, 2048)
    else:
        assert kind.size(768, 1024)[0] == kind.size(1024, 768)[1] == s.eval_short_side == side
        if "semantic_fpn" in recipe:  # 683 becomes a multiple of 32
            assert kind.size(768, 1024) == (512, 704)
    stride = {512: 341, 768: 512, 1024: 768}.get(side)
    if s.eval_mode == "slide":
        assert round(side * (1 - s.eval_overlap)) == stride


def test_folders_as_they_are_unpacked(tmp_path: pathlib.Path) -> None:
    """ADE20K's 0 is no class and its 1 the first; Cityscapes' other maps are left out."""
    import cv2

    image, labels = np.zeros((5, 7, 3), np.uint8), np.arange(35, dtype=np.uint8).reshape(5, 7)
    ade, city = tmp_path / "ade", tmp_path / "city"
    for half, part in itertools.product(("images", "annotations"), ("training", "validation")):
        (ade / half / part).mkdir(parents=True)
        ours = image if half == "images" else labels
        cv2.imwrite(str(ade / half / part / "ADE_1.png"), ours)
    for part in ("train", "val"):
        for half in ("leftImg8bit", "gtFine"):
            (city / half / part / "ulm").mkdir(parents=True)
        cv2.imwrite(str(city / "leftImg8bit" / part / "ulm" / "ulm_0_leftImg8bit.png"), image)
        for name in ("labelIds", "labelTrainIds", "color"):
            file = city / "gtFine" / part / "ulm" / f"ulm_0_gtFine_{name}.png"
            cv2.imwrite(str(file), labels % 19 if name == "labelTrainIds" else labels)
    for file, folder in (("ade20k", ade), ("cityscapes", city)):
        query = config_of(f"{file}.py").data.train.partition("?")[2]
        for split in ("train", "test"):
            found = open_source(f"maps://{folder}?{query}", split)
            assert len(found.info.classes) == CLASSES[f"{file}.py"]
            first = np.asarray(found[0]["map"].read()).ravel()
            assert len(found) == 1
            if file == "ade20k":
                assert first[0] == IGNORE and first[1] == 0
            else:
                assert first[0] == 0 and first[18] == 18


SMALL = {
    "model.dtype": "float32",
    "data.batch_size": "3",
    "data.eval_batch_size": "3",
    "data.image_size": "64",
}


def program_of(config, info):
    task = task_from_config(config, info)
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    return task, compile_program(config, task, mesh, count_steps(config, 0))


@pytest.mark.slow
def test_takes_two_steps() -> None:
    """SegFormer's decay, rates and augmentation, with a tiny model and other data."""
    backbone = "mit_b0(depths=(1,1), dims=(8,16), num_heads=(1,2), sr_ratio=(4,1))"
    fields = {
        **SMALL,
        "model.backbone": backbone,
        "model.width": "16",
        "data.train": "scenes://?size=48&count=23",
        "segmentation.eval_size": "(64, 64)",
        "schedule.warmup_steps": "0",
        "schedule.start_factor": "0.0",
    }
    config = config_of("ade20k.py:segformer_b0", **fields)
    source = open_source(config.data.train, "train")
    task, program = program_of(config, source.info)
    key = jax.random.key(0)
    state = program.init(key)
    batches = train_batches(
        source, kinds=task.kinds, batch_size=3, augment=config.data.augment, num_threads=0
    )
    losses, moved = [], []
    for batch in itertools.islice(batches, 2):
        before = jax.tree.map(jnp.copy, state.params)
        state, metrics = program.train_step(state, batch, key)
        losses.append(float(metrics["loss"]))
        change = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), before, state.params)
        moved.append(change)
    assert int(state.step) == 2 and np.isfinite(losses).all()
    assert losses[0] == pytest.approx(math.log(11), rel=0.3)
    # AdamW's first step is as long as the rate, which is ten times that in the head.
    assert moved[0]["head"]["logits"]["bias"] == pytest.approx(6e-4, rel=0.01)
    assert moved[0]["backbone"]["norm_1"]["scale"] == pytest.approx(6e-5, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sidd_uformer_t", "gopro_uformer_b"])
def test_a_step_of_restoration_has_the_shapes_it_needs(name: str) -> None:
    sizes = {"model.width": "4", "model.depths": str((1,) * 9), "model.num_heads": str((1,) * 9)}
    sizes["data.batch_size"] = "4"  # pairs are mixed
    config = config_of(f"restoration.py:{name}", **{**SMALL, **sizes})
    _, program = program_of(config, info_of(f"restoration.py:{name}"))
    given = program.state, program.batch_spec, program.key
    assert {"image", "target"} <= program.batch_spec.keys()
    state, metrics = jax.eval_shape(program.train_step, *given)
    assert metrics["loss"].shape == () and state.step.shape == ()
    first, second = (float(program.schedule(t * config.schedule.hold_steps)) for t in (0, 1))
    assert (first, second) == pytest.approx((2e-4 / 3, 4e-4 / 3))
