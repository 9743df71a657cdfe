"""One process per test worker, on the CPU, with no network."""

import gc
import hashlib
import os
import pathlib
import shutil
from importlib.metadata import version

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of a test's time is compilation: without LLVM's expensive passes it takes half as long.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# XLA's older emitters take a quarter of the time of its new ones; later versions have only those.
if version("jaxlib") < "0.11":
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_use_fusion_emitters=false".strip()

import jax
import jaxtyping
import pytest

import tests.checked  # noqa: F401  # named by the option --jaxtyping-packages

# Traces are large graphs of Python objects: rarer collections take a tenth off the tests' time.
gc.set_threshold(50_000, 50, 1000)


KEPT_LIMIT = 2e9  # bytes


def pytest_configure(config: pytest.Config) -> None:
    """Keep compiled programs for the next run, of any checkout: compiling is half of the time.

    The key of a program knows nothing of the processor, whose instructions it uses: the folder's
    name does.
    """
    info = pathlib.Path("/proc/cpuinfo")  # of Linux alone
    lines = info.read_text().splitlines() if info.exists() else []
    flags = next((line for line in lines if "flags" in line), "")
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    kept = cache / "vitjax" / "tests" / hashlib.sha256(flags.encode()).hexdigest()[:8]
    for name, value in (
        ("jax_compilation_cache_dir", str(kept)),
        ("jax_persistent_cache_min_compile_time_secs", "0.05"),
    ):
        value = os.environ.setdefault(name.upper(), value)  # for processes that tests start
        jax.config.update(name, value if name.endswith("dir") else float(value))
    if hasattr(config, "workerinput"):  # the process that starts the workers does the rest
        return
    if sum(path.stat().st_size for path in kept.glob("*") if path.is_file()) > KEPT_LIMIT:
        shutil.rmtree(kept, ignore_errors=True)


@pytest.fixture
def optimized():
    """Turn on compiler optimizations, for tests that compute for longer than they compile."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(autouse=True)
def unchecked(request: pytest.FixtureRequest):
    """Leave annotations unchecked in slow tests: fast ones and golden cases run the same code.

    The check is half of the time that tracing takes.
    """
    named = request.node.get_closest_marker
    jaxtyping.config.update("jaxtyping_disable", bool(named("slow") and not named("golden")))
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(autouse=True, scope="module")
def bounded_memory():
    """Clear jax's caches after a module if the worker's process holds gigabytes."""
    yield
    pages = pathlib.Path("/proc/self/statm")  # of Linux alone
    held = int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if pages.exists() else 0
    if held > 4e9:
        jax.clear_caches()
