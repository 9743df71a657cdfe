"""Profiler trace of some steps, for TensorBoard and Perfetto."""

import pathlib
import re

import jax

from vitjax.console import progress


class Profile:
    """Profiler of steps START to START + STEPS - 1 of a run.

    Args:
      text: "START:STEPS"; empty for no trace.
      folder: receives `plugins/profile/…`: `tensorboard --logdir=FOLDER`, or open its
        `perfetto_trace.json.gz` at ui.perfetto.dev.
      steps: length of the whole run.

    Raises:
      ValueError: the text does not parse, or the run has no such step.
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
        """Start the trace before its first step, or before a later one in a resumed run."""
        if not self._on and self.first <= step < self.first + self.count:
            options = jax.profiler.ProfileOptions()
            # Its hooks into every thread of the process cost the host time, and have crashed it.
            options.python_tracer_level = 0
            jax.profiler.start_trace(
                self.folder, create_perfetto_trace=True, profiler_options=options
            )
            self._on = True

    def after(self, step: int, result: object) -> None:
        """Stop the trace after its last step, once the result of the step is ready."""
        if self._on and step + 1 >= self.first + self.count:
            jax.block_until_ready(result)
            self.close()
            progress(f"A trace of {self.count} steps is in {self.folder}.", last=True)

    def close(self) -> None:
        """Stop the trace if it is running."""
        if self._on:
            self._on = False
            jax.profiler.stop_trace()
