"""Requests to stop a run, and a watchdog for steps that never end."""

import contextlib
import faulthandler
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils

STOPPED = 75  # EX_TEMPFAIL: start the same command again
STALLED = 76


class StopRequest:
    """Request to stop the run, by SIGTERM or Ctrl-C; a second Ctrl-C interrupts at once.

    With several processes, jax handles the SIGTERM of any of them and the platform's notice of a
    preemption, and all stop after the same step.
    """

    def __init__(self) -> None:
        self.signal: str | None = None

    @contextlib.contextmanager
    def listening(self) -> Iterator["StopRequest"]:
        """Handle the signals while the context is open."""

        def take(number: int, _: Any) -> None:
            if self.signal and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.signal = signal.Signals(number).name

        def share(number: int, _: Any) -> None:
            signal.signal(number, signal.default_int_handler)
            os.kill(os.getpid(), signal.SIGTERM)

        alone = jax.process_count() == 1
        handlers = {signal.SIGINT: take if alone else share}
        if alone:  # else SIGTERM is jax's
            handlers[signal.SIGTERM] = take
        old = {s: signal.signal(s, handler) for s, handler in handlers.items()}
        try:
            yield self
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def after(self, step: int) -> bool:
        """Return whether to stop after this step; every process calls this after every step."""
        if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(step):
            self.signal = "SIGTERM"
        return self.signal is not None


@contextlib.contextmanager
def leave_at_once() -> Iterator[None]:
    """Exit with STOPPED on SIGTERM, at once, while there is nothing to save.

    A handler in Python would wait for a running compilation; this one does not.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)

    def watch() -> None:
        with ours:
            while data := ours.recv(1):
                if data[0] == signal.SIGTERM and signal.getsignal(signal.SIGTERM) is ignore:
                    print("Stopped by SIGTERM. Run the same command to go on.", flush=True)
                    os._exit(STOPPED)

    def ignore(number: int, _: Any) -> None:
        pass

    old = signal.signal(signal.SIGTERM, ignore)
    old_fd = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    watcher = threading.Thread(target=watch, name="signals", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(old_fd)
        signal.signal(signal.SIGTERM, old)
        theirs.close()
        watcher.join()


class Watchdog:
    """Watchdog that ends a stalled process and prints the stack of every thread.

    Args:
      seconds: longest time between two calls of `alive`; 0 for no limit.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds, self._last, self._done = seconds, 0.0, threading.Event()

    def alive(self) -> None:
        """Reset the timer; the first call, after compilation, starts it."""
        if self.seconds and not self._last:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        self._last = time.monotonic()

    def close(self) -> None:
        """Stop the watchdog."""
        self._done.set()

    def _watch(self) -> None:
        while not self._done.wait(min(self.seconds / 4, 5.0)):
            silent = time.monotonic() - self._last
            if silent > self.seconds:
                print(
                    f"error: No step has ended for {silent:.0f} s (config.stall_seconds="
                    f"{self.seconds:g}). Where every thread stands:",
                    file=sys.stderr,
                    flush=True,
                )
                faulthandler.dump_traceback(all_threads=True)
                os._exit(STALLED)
