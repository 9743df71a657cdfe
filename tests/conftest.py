"""One process per test worker, on the CPU, with no network."""

import gc
import os
import pathlib
from importlib.metadata import version

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of a test's time is compilation: without LLVM's expensive passes it takes half as long.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# XLA's older emitters take a quarter of the time of its new ones; later versions have only those.
if version("jaxlib") < "0.11":
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_use_fusion_emitters=false".strip()

import jax
import pytest

# Traces are large graphs of Python objects: rarer collections take a tenth off the tests' time.
gc.set_threshold(50_000, 50, 1000)


@pytest.fixture
def optimized():
    """Turn on compiler optimizations, for tests that compute for longer than they compile."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(autouse=True, scope="module")
def bounded_memory():
    """Clear jax's caches after a module if the worker's process holds gigabytes."""
    yield
    pages = pathlib.Path("/proc/self/statm")  # of Linux alone
    held = int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if pages.exists() else 0
    if held > 4e9:
        jax.clear_caches()
