"""A trace of some steps, which TensorBoard and Perfetto read."""

import pathlib
import re

import jax

from vitjax.console import progress


class Profile:
    """Traces steps START to START + STEPS - 1 of a run.

    Args:
      text: "START:STEPS"; empty for no trace.
      folder: gets `plugins/profile/…`: `tensorboard --logdir=FOLDER`, or open its
        `perfetto_trace.json.gz` at ui.perfetto.dev.

      steps: of the whole run.

    Raises:
      ValueError: the text is none, or the run has no such step.
    """

    def __init__(self, text: str, folder: pathlib.Path, steps: int) -> None:
        match = re.fullmatch(r"(\d+):([1-9]\d*)", text)
        if text and not match:
            raise ValueError(f"--profile={text!r} takes START:STEPS, such as 100:5.")
        self.first, self.count = (int(match[1]), int(match[2])) if match else (-1, 0)
        if self.first >= steps:
            raise ValueError(f"--profile={text}: the run has {steps} steps, 0 to {steps - 1}.")
        self.folder, self._on = folder, False

    def before(self, step: int) -> None:
        """Begin the trace before its first step, or before a later one of a resumed run."""
        if not self._on and self.first <= step < self.first + self.count:
            jax.profiler.start_trace(self.folder, create_perfetto_trace=True)
            self._on = True

    def after(self, step: int, result: object) -> None:
        """End the trace when its last step is done; waits for the step's result."""
        if self._on and step + 1 >= self.first + self.count:
            jax.block_until_ready(result)
            self.close()
            progress(f"A trace of {self.count} steps is in {self.folder}.", last=True)

    def close(self) -> None:
        """End a trace that is under way."""
        if self._on:
            self._on = False
            jax.profiler.stop_trace()
