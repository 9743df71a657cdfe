"""Checkpoints, written by Orbax and verified by a checksum of every array.

Orbax restores flipped bits and other dtypes without an error. So each save stores a checksum per
array, computed on the devices, and each restore is verified against it.
"""

import dataclasses
import json
import logging
import math
import pathlib
import shutil
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util
from jaxtyping import Array, UInt32
from orbax.checkpoint import checkpoint_managers as managers

from vitjax.train import processes
from vitjax.train.state import TrainState, named_leaves

log = logging.getLogger("vitjax")


class CheckpointError(RuntimeError):
    """Error: a checkpoint cannot be written or used."""


def without_late_failures(hook: Callable[[Any], None]) -> Callable[[Any], None]:
    """Build a `sys.unraisablehook` that drops tensorstore's messages after a failed save.

    The first failed write ends the save and is reported. Writes that fail later find the event
    loop closed, and each would print a traceback.
    """

    def unraisablehook(it: Any) -> None:
        if it.exc_type is not RuntimeError or str(it.exc_value) != "Event loop is closed":
            hook(it)

    return unraisablehook


class SavedSteps:
    """Read-only view of the checkpoints in a run's folder: it creates and changes nothing.

    Args:
      frozen: SHA-256 of the frozen arrays of the state, which are not saved and must be the same
        when a state is restored; empty for none.
    """

    def __init__(self, folder: pathlib.Path, frozen: str = "") -> None:
        self.folder, self.frozen = folder.absolute(), frozen
        self._fingerprint = jax.jit(fingerprint)

    def steps(self) -> list[int]:
        """List the steps with a checkpoint, in order, without half-written and empty folders.

        Raises:
          CheckpointError: an older version of this library wrote them.
        """
        if old := list(self.folder.glob("[0-9]*/seal/metadata")):
            raise CheckpointError(
                f"The checkpoints in {self.folder} were written by vitjax 0.1 (step "
                f"{old[0].parent.parent.name}, for one), and this version reads its own format "
                f"alone. Finish that run with the version that began it, or choose another "
                f"--workdir."
            )
        written = (p.parent.parent.name for p in self.folder.glob("[0-9]*/manifest/metadata"))
        return sorted(int(name) for name in written if name.isdecimal())  # others: half-written

    def best(self) -> tuple[int, dict[str, float]] | None:
        """Return step and metrics of the best evaluated checkpoint that is kept."""
        manifests = [(step, self.manifest(step)) for step in self.steps()]
        rated = [(m["metrics"][m["monitor"]], step) for step, m in manifests if m["metrics"]]
        return (max(rated)[1], self.metrics(max(rated)[1])) if rated else None

    def metrics(self, step: int) -> dict[str, float]:
        """Read the metrics that were saved with the step."""
        return self.manifest(step)["metrics"]

    def history(self, step: int) -> dict[str, Any]:
        """Read the `divergence.History` that was saved with the step."""
        return self.manifest(step)["history"]

    def read(self, step: int | None = None) -> tuple[int, dict[str, Any]]:
        """Read variables for inference, as numpy arrays.

        They are `params`, `ema` (averaged, or None) and `collections`.

        Args:
          step: None for the latest intact checkpoint.

        Raises:
          CheckpointError: there is no such checkpoint, or it is damaged.
        """
        reasons = []
        for candidate in [step] if step is not None else reversed(self.steps()):
            try:
                return candidate, self._read(candidate)
            except Exception as error:
                reasons.append(f"step {candidate}: {_first(error)}")
        why = f" ({'; '.join(reasons)})." if reasons else "; train first."
        raise CheckpointError(f"No usable checkpoint in {self.folder}{why}")

    def _read(self, step: int) -> dict[str, Any]:
        wanted = {
            tuple(path.split("/")): np.zeros(shape, dtype)
            for path, (dtype, shape, _) in self.manifest(step)["arrays"].items()
            if path.startswith(("params/", "ema/", "collections/", "ema_collections/"))
        }
        target = traverse_util.unflatten_dict(wanted)
        arguments = ocp.args.PyTreeRestore(
            item=target,
            restore_args=ocp.checkpoint_utils.construct_restore_args(target),
            partial_restore=True,
        )
        with ocp.PyTreeCheckpointer() as reader:
            found = reader.restore(self.folder / str(step) / "state", args=arguments)
        self._verify(step, found)
        found = {"ema": None, "collections": {}, **found}
        averages = found.pop("ema_collections", {})
        return {**found, "collections": {**found["collections"], **averages}}

    def restore_step(self, step: int, template: Any) -> TrainState:
        """Restore the state of a step, without `frozen`; any exception means it is unusable."""
        template = dataclasses.replace(template, frozen=None)
        if (there := self.manifest(step)["frozen"]) != self.frozen:
            raise CheckpointError(
                f"its teacher had the SHA-256 {there[:16] or '(none)'}, and the teacher now has "
                f"{self.frozen[:16] or '(none)'}"
            )
        arrays, complaints = self.manifest(step)["arrays"], []
        want = named_leaves(template)
        for path in sorted(arrays.keys() | want.keys()):
            there = arrays.get(path, ["nothing", []])[:2]
            here = (
                [str(want[path].dtype), list(want[path].shape)] if path in want else ["nothing", []]
            )
            if there != here:
                complaints.append(f"{path} is {_kind(there)} there and {_kind(here)} here")
        if complaints:
            raise CheckpointError(f"it is of another model: {'; '.join(complaints[:5])}")
        with ocp.StandardCheckpointer() as reader:
            restored = reader.restore(self.folder / str(step) / "state", template)
        self._verify(step, restored)
        return restored

    def manifest(self, step: int) -> dict[str, Any]:
        """Read the manifest of a step, which is stored beside its arrays."""
        path = self.folder / str(step) / "manifest" / "metadata"
        if not path.is_file():
            saved = ", ".join(map(str, self.steps())) or "none"
            raise CheckpointError(f"no such step; steps with a checkpoint: {saved}")
        return json.loads(path.read_text())

    def _verify(self, step: int, state: Any) -> None:
        arrays, prints = self.manifest(step)["arrays"], self._fingerprint(state)
        if wrong := [path for path, value in prints.items() if int(value) != arrays[path][2]]:
            raise CheckpointError(
                f"the bytes of {', '.join(wrong[:3])} changed since they were saved"
            )


class Checkpoints(SavedSteps):
    """Checkpoints of one run in `folder`, which is created.

    Args:
      keep: how many of the latest to keep; the best by `monitor` is kept too.
      monitor: name of the metric that chooses the best; larger is better.
      frozen: see `SavedSteps`.
      regular: whether every run saves at a step, and not only a run that is stopped there; the
        latest regular checkpoint is kept too.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        *,
        keep: int = 3,
        monitor: str = "top1",
        frozen: str = "",
        regular: Callable[[int], bool] = bool,
    ) -> None:
        super().__init__(folder, frozen)
        self.steps()  # refuses another format before anything is made
        self.monitor = monitor
        policy = managers.AnyPreservationPolicy(
            [
                managers.LatestN(keep),
                _LatestRegular(regular),
                managers.BestN(
                    get_metric_fn=lambda m: m[monitor], n=1, keep_checkpoints_without_metrics=False
                ),
            ]
        )
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policy, cleanup_tmp_directories=True, create=True
            ),
            item_names=("state", "manifest"),
        )

    def save(
        self,
        step: int,
        state: TrainState,
        metrics: dict[str, float] | None = None,
        history: dict[str, Any] | None = None,
    ) -> None:
        """Start to write the state, and return when the state may be changed.

        Raises:
          CheckpointError: it failed at once. A failure in the background (say a full disk) is
            reported by the next save in the log, or by `wait`.
        """
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        except Exception as error:
            log.warning("An earlier save failed: %s", _first(error))
        state = dataclasses.replace(state, frozen=None)
        prints = jax.device_get(self._fingerprint(state))
        manifest = {
            "step": step,
            "monitor": self.monitor,
            "metrics": metrics or {},
            "frozen": self.frozen,
            "history": history or {},
            "arrays": {
                path: [str(leaf.dtype), list(leaf.shape), int(prints[path])]
                for path, leaf in named_leaves(state).items()
            },
        }
        try:
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state), manifest=ocp.args.JsonSave(manifest)
                ),
                metrics=metrics or None,
                force=True,
            )
        except Exception as error:
            raise CheckpointError(
                f"Saving step {step} in {self.folder} failed: {_first(error)}"
            ) from error

    def wait(self) -> None:
        """Wait until all saves are on disk.

        Raises:
          CheckpointError: it could not be written.
        """
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        except Exception as error:
            raise CheckpointError(f"Saving in {self.folder} failed: {_first(error)}") from error

    def forget_after(self, step: int) -> None:
        """Delete the checkpoints of later steps, for a run that continues from this step."""
        self.wait()
        for later in processes.from_lead([s for s in self.steps() if s > step]):
            self._manager.delete(later)

    def restore(self, template: Any) -> tuple[int, TrainState] | None:
        """Restore the latest intact checkpoint as (step, state), or None if none was saved.

        A damaged checkpoint is logged and moved to `damaged/` beside it, and the previous one is
        used.

        Args:
          template: the state's shapes, dtypes and shardings.

        Raises:
          CheckpointError: there are checkpoints, and none can be used.
        """
        steps, reasons = processes.from_lead(self.steps()), []
        for step in reversed(steps):
            state, wrong = None, ""
            try:
                state = self.restore_step(step, template)
            except Exception as error:
                wrong = _first(error)
            # What one process cannot read, none uses.
            if wrong := next(filter(None, processes.exchange(wrong)), ""):
                reasons.append(f"step {step}: {wrong}")
                log.warning("Checkpoint of step %d is damaged: %s", step, wrong)
                continue
            assert state is not None
            for damaged in (s for s in steps if s > step):
                self._set_aside(damaged)
            if reasons:
                log.warning("Going on from the checkpoint before it, step %d.", step)
            return step, state
        if steps:
            raise CheckpointError(
                f"None of the {len(steps)} checkpoints in {self.folder} can be used "
                f"({'; '.join(reasons)}). "
                "Nothing was changed; choose another --workdir to start afresh."
            )
        return None

    def close(self) -> None:
        """Wait for writes and free the manager's threads."""
        self._manager.close()

    def _set_aside(self, step: int) -> None:
        if processes.is_lead():
            target = self.folder.parent / "damaged" / str(step)
            target.parent.mkdir(exist_ok=True)
            shutil.rmtree(target, ignore_errors=True)
            shutil.move(self.folder / str(step), target)
        processes.all_agree(True)  # all see the folder as it is now
        self._manager.reload()


class _LatestRegular(managers.PreservationPolicy):
    def __init__(self, regular: Callable[[int], bool]) -> None:
        self.regular = regular

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        last = max((c.step for c in checkpoints if self.regular(c.step)), default=None)
        return [c.step == last for c in checkpoints]


def fingerprint(tree: Any) -> dict[str, UInt32[Array, ""]]:
    """Compute a checksum per array: the sum of its words, each times an odd number by position.

    Any single changed bit changes the checksum. It does not depend on the sharding, and does not
    change the sharding.
    """

    def one(leaf: Any) -> UInt32[Array, ""]:
        leaf = jnp.asarray(leaf)
        width = leaf.dtype.itemsize
        words = jax.lax.bitcast_convert_type(leaf, getattr(jnp, f"uint{8 * min(width, 4)}"))
        place = jnp.zeros((), jnp.uint32)  # in row-major order
        for axis in range(words.ndim):
            stride = jnp.uint32(math.prod(words.shape[axis + 1 :]) % 2**32)
            place += jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis) * stride
        odd = place * jnp.uint32(2654435761) * 2 + 1
        return jnp.sum(words.astype(jnp.uint32) * odd, dtype=jnp.uint32)

    return {path: one(leaf) for path, leaf in named_leaves(tree).items()}


def _kind(entry: list[Any]) -> str:
    return f"{entry[0]}{list(entry[1])}" if entry[0] != "nothing" else "absent"


def _first(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [
        type(error).__name__
    ]
    return lines[0].partition(" See full")[0][:300]
