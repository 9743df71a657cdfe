"""Checkpoints come back bit for bit, or are named as damaged."""

import gc
import json
import logging
import pathlib
import shutil
from collections.abc import Iterator

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vitjax.train.checkpoint import CheckpointError, Checkpoints, SavedSteps, fingerprint
from vitjax.train.state import TrainState, create_state

# A read that Orbax gives up leaves its other reads unawaited, and Python says so when it tidies up.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
]


@pytest.fixture(autouse=True)
def _tidy_up_here() -> Iterator[None]:
    yield
    gc.collect()


def make_state(value: float = 0.0) -> TrainState:
    rng = np.random.default_rng(0)
    params = {"dense": {"kernel": jnp.asarray(rng.standard_normal((67, 31)) + value, jnp.float32)}}
    state = create_state({"params": params}, optax.adam(1e-3, mu_dtype=jnp.bfloat16), ema=True)
    return state.replace(step=jnp.asarray(int(value), jnp.int32))


def template() -> TrainState:
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), make_state()
    )


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=3)
    for step in (1, 2, 3):
        checkpoints.save(step, make_state(step), {"top1": 0.5, "loss": 1.0})
    checkpoints.wait()
    checkpoints.close()
    return tmp_path / "checkpoints"


def data_file(step: pathlib.Path) -> pathlib.Path:
    """The file that holds most of the arrays' bytes."""
    return max(
        (p for p in (step / "state").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size
    )


@pytest.mark.slow
def test_a_state_comes_back_bit_for_bit(folder: pathlib.Path) -> None:
    step, state = Checkpoints(folder).restore(template())
    assert step == 3
    chex.assert_trees_all_equal(state, make_state(3))
    chex.assert_trees_all_equal_dtypes(state, make_state(3))


def test_no_checkpoint_is_no_error(tmp_path: pathlib.Path) -> None:
    assert Checkpoints(tmp_path / "none").restore(template()) is None


def flip(folder: pathlib.Path) -> None:
    path = data_file(folder / "3")
    data = bytearray(path.read_bytes())
    for i in range(97, len(data), 97):  # some bytes are of nodes that no array needs
        data[i] ^= 1
    path.write_bytes(data)


def truncate(folder: pathlib.Path) -> None:
    path = data_file(folder / "3")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def delete(folder: pathlib.Path) -> None:
    data_file(folder / "3").unlink()


def truncate_metadata(folder: pathlib.Path) -> None:
    path = folder / "3" / "state" / "_METADATA"
    path.write_bytes(path.read_bytes()[:20])


def spoil_manifest(folder: pathlib.Path) -> None:
    for path in (folder / "3" / "manifest").rglob("*"):
        path.write_text("{") if path.is_file() else None


@pytest.mark.slow
@pytest.mark.parametrize("damage", [flip, truncate, delete, truncate_metadata, spoil_manifest])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(
    folder: pathlib.Path, damage, caplog: pytest.LogCaptureFixture
) -> None:
    damage(folder)
    with caplog.at_level(logging.WARNING, "vitjax"):
        step, state = Checkpoints(folder).restore(template())
    assert step == 2
    chex.assert_trees_all_equal(state, make_state(2))
    assert "step 3 is damaged" in caplog.text
    assert "step 2" in caplog.text
    assert (folder.parent / "damaged" / "3").exists()
    again = Checkpoints(folder)  # the step can be saved again
    again.save(3, make_state(3))
    again.wait()
    assert again.restore(template())[0] == 3


@pytest.mark.slow
def test_an_empty_step_folder_is_passed_over(folder: pathlib.Path) -> None:
    (folder / "4").mkdir()
    assert Checkpoints(folder).restore(template())[0] == 3


@pytest.mark.slow
def test_what_a_killed_save_left_is_passed_over_and_removed(folder: pathlib.Path) -> None:
    """Orbax renames a step's folder when all is written: a kill just before leaves it whole."""
    shutil.copytree(folder / "3", folder / "4.orbax-checkpoint-tmp")
    assert SavedSteps(folder).steps() == [1, 2, 3]
    checkpoints = Checkpoints(folder)
    assert checkpoints.restore(template())[0] == 3
    checkpoints.save(4, make_state(4))
    checkpoints.wait()
    assert checkpoints.restore(template())[0] == 4
    assert not (folder / "4.orbax-checkpoint-tmp").exists()


@pytest.mark.slow
def test_when_all_are_damaged_nothing_is_started_afresh(folder: pathlib.Path) -> None:
    for step in "123":
        data_file(folder / step).unlink()
    with pytest.raises(CheckpointError, match="None of the 3 checkpoints"):
        Checkpoints(folder).restore(template())
    assert {p.name for p in folder.iterdir()} >= {"1", "2", "3"}


@pytest.mark.slow
def test_another_model_is_told_from_a_damaged_file(folder: pathlib.Path) -> None:
    def other(path, x):
        wrong = "kernel" in str(path) and "ema" in str(path)
        return jax.ShapeDtypeStruct((67, 32), x.dtype, sharding=x.sharding) if wrong else x

    with pytest.raises(
        CheckpointError, match=r"float32\[67, 31\] there and float32\[67, 32\] here"
    ):
        Checkpoints(folder).restore(jax.tree_util.tree_map_with_path(other, template()))


@pytest.mark.slow
def test_another_dtype_is_refused(folder: pathlib.Path) -> None:
    def half(x):
        dtype = jnp.bfloat16 if x.dtype == jnp.float32 else x.dtype
        return jax.ShapeDtypeStruct(x.shape, dtype, sharding=x.sharding)

    with pytest.raises(CheckpointError, match="of another model"):
        Checkpoints(folder).restore(jax.tree.map(half, template()))


@pytest.mark.slow
def test_the_latest_and_the_best_are_kept(tmp_path: pathlib.Path) -> None:
    checkpoints = Checkpoints(tmp_path / "c", keep=2)
    for step, top1 in ((1, 0.1), (2, 0.9), (3, 0.3), (4, None), (5, 0.2), (6, None)):
        checkpoints.save(
            step, make_state(step), None if top1 is None else {"top1": top1, "loss": 1.0}
        )
        checkpoints.wait()
    assert checkpoints.steps() == [2, 5, 6]
    assert checkpoints.best() == (2, {"top1": 0.9, "loss": 1.0})
    assert checkpoints.metrics(6) == {}


@pytest.mark.slow
def test_parameters_alone_are_read_for_inference(folder: pathlib.Path) -> None:
    step, found = SavedSteps(folder).read()
    assert step == 3
    chex.assert_trees_all_equal(found["params"], jax.device_get(make_state(3).params))
    flip(folder)
    assert SavedSteps(folder).read()[0] == 2
    with pytest.raises(CheckpointError, match="the bytes of"):
        SavedSteps(folder).read(3)


@pytest.mark.slow
def test_the_manifest_is_readable_by_people(folder: pathlib.Path) -> None:
    manifest = json.loads((folder / "3" / "manifest" / "metadata").read_text())
    assert manifest["step"] == 3
    assert manifest["arrays"]["params/dense/kernel"][:2] == ["float32", [67, 31]]


@pytest.mark.slow
def test_the_fingerprint_sees_one_bit_and_one_swap() -> None:
    x = np.random.default_rng(0).standard_normal(1009).astype(np.float32)
    base = fingerprint({"x": x})["x"]
    flipped = x.copy().view(np.uint32)
    flipped[500] ^= 1 << 31
    swapped = x.copy()
    swapped[[3, 4]] = swapped[[4, 3]]
    for other in (flipped.view(np.float32), swapped):
        assert fingerprint({"x": other})["x"] != base
