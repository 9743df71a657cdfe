"""Where compiled programs are kept."""

import pathlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import pytest

from vitjax.train.compiler import FEW, MANY, init_options, keep_compiled


@pytest.fixture(autouse=True)
def no_folder() -> Iterator[None]:
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    jax.config.update("jax_compilation_cache_dir", before)


def test_they_are_kept_in_the_users_cache_folder(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert keep_compiled() == str(tmp_path / "vitjax" / "jax")
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "vitjax" / "jax")
    assert (tmp_path / "vitjax" / "jax").is_dir()


def test_a_folder_that_is_set_stays(tmp_path: pathlib.Path) -> None:
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    assert keep_compiled() == jax.config.jax_compilation_cache_dir == str(tmp_path)


def test_without_a_folder_a_run_goes_on(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert keep_compiled().startswith("none, as ")
    assert jax.config.jax_compilation_cache_dir is None


def test_it_can_be_turned_off() -> None:
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        assert keep_compiled() == "none"
        assert jax.config.jax_compilation_cache_dir is None
    finally:
        jax.config.update("jax_enable_compilation_cache", True)


def test_first_weights_of_many_small_arrays_alone_compile_without_optimisation() -> None:
    unoptimised = {"xla_backend_optimization_level": 0}
    assert init_options(jax.devices(), [1] * MANY) == unoptimised
    assert init_options(jax.devices(), [1] * (MANY - 1)) is None
    assert init_options(jax.devices(), [FEW] * MANY) is None
    compiled = jax.jit(jnp.sin, compiler_options=unoptimised)
    assert compiled(0.5) == pytest.approx(0.4794255386)
