"""States that a run starts from or returns to: of its checkpoints, of another run, or new."""

import pathlib
from typing import Any

import jax

from vitjax.task import Task
from vitjax.train.checkpoint import CheckpointError, Checkpoints, SavedSteps
from vitjax.train.defaults import RunConfig
from vitjax.train.divergence import History
from vitjax.train.program import Program, with_frozen
from vitjax.train.state import TrainState, with_variables


class States:
    """States of a run by step.

    Attributes:
      key: random key of the run, a function of its seed.
    """

    def __init__(
        self, config: RunConfig, program: Program, task: Task, checkpoints: Checkpoints
    ) -> None:
        self.config, self.program, self.task = config, program, task
        self.checkpoints = checkpoints
        self.key = jax.jit(
            lambda: jax.random.key(config.seed), out_shardings=program.key.sharding
        )()

    def latest(self) -> tuple[int, TrainState, History]:
        """Return the step to start from, its state, and the losses until then.

        It is that of the latest intact checkpoint; without one, `config.init_step` of the run in
        `config.init`, or step 0.
        """
        if found := self.checkpoints.restore(self.program.state):
            step, state = found
            return step, self._complete(state), History(self.checkpoints.history(step))
        if step := self.config.init_step:
            folder = pathlib.Path(self.config.init) / "checkpoints"
            branch = SavedSteps(folder, self.checkpoints.frozen)
            state = restore_branch(branch, step, self.program.state)
            return step, self._complete(state), History(branch.history(step))
        return 0, self.initial(), History()

    def at(self, step: int) -> TrainState:
        """Return the state of a step with a checkpoint, or the initial state for step 0."""
        if not step:
            return self.initial()
        return self._complete(self.checkpoints.restore_step(step, self.program.state))

    def initial(self) -> TrainState:
        """Initialise the state from the seed; `config.init` replaces the model's weights."""
        state, init = self._complete(self.program.init(self.key)), self.config.init
        if not init:
            return state
        if self.task.load is None:
            raise ValueError(
                f"The task {self.config.task!r} cannot start from pretrained weights; remove "
                f"config.init."
            )
        return with_variables(state, self.task.load(init))

    def _complete(self, state: Any) -> TrainState:
        return with_frozen(state, self.program, self.task)


def restore_branch(saved: SavedSteps, step: int, template: Any) -> TrainState:
    """Restore the state of another run at a step.

    Raises:
      CheckpointError: there is no intact checkpoint of that step, or it is of another model.
    """
    try:
        return saved.restore_step(step, template)
    except CheckpointError as error:
        raise CheckpointError(
            f"This run cannot go on from step {step} in {saved.folder}: {error}"
        ) from error
