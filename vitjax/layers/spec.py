"""`Spec`: a module class and its hyperparameters, as a frozen value that is not yet built.

Blocks take their parts as specs, because a module instance passed to several blocks would share its
parameters.
"""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

from vitjax.names import unknown

CONTEXT = frozenset({"dense", "dtype", "map_size", "num_heads", "param_init", "width"})
"""What a model tells each of its parts, and a part may ignore."""


@dataclasses.dataclass(frozen=True)
class Spec:
    """A module class (or factory) and its hyperparameters.

    Equal specs compare equal and hash alike. A hyperparameter that is a tuple has one value per
    stage, which `at(stage)` selects.
    """

    factory: Callable[..., Any]
    kwargs: tuple[tuple[str, Any], ...] = ()

    def at(self, stage: int) -> "Spec":
        """Return the spec of one stage: every tuple is replaced by its `stage`-th element.

        Raises:
          ValueError: a tuple has no such element.
        """
        for name, value in self.kwargs:
            if isinstance(value, tuple) and stage >= len(value):
                raise ValueError(
                    f"{self.name}.{name} has {len(value)} per-stage values {value}, and the model "
                    f"has a stage "
                    f"number {stage + 1}; give one value for all stages or one for each."
                )
        return Spec(
            self.factory,
            tuple((k, v[stage] if isinstance(v, tuple) else v) for k, v in self.kwargs),
        )

    def replace(self, **kwargs: Any) -> "Spec":
        """Return the spec with these hyperparameters set."""
        return spec(self.factory, **{**dict(self.kwargs), **kwargs})

    def default(self, **values: Any) -> "Spec":
        """Fill the hyperparameters that the spec leaves open.

        The factory may lack names of CONTEXT: a model gives `num_heads` to every mixer, and one
        without heads ignores it.

        Raises:
          ValueError: the factory lacks another name.
        """
        known = fields(self.factory)
        for name in values:
            if name not in known and name not in CONTEXT:
                raise ValueError(unknown(f"hyperparameter of {self.name}", name, known))
        return self.offer(**values)

    def offer(self, **values: Any) -> "Spec":
        """Fill the hyperparameters that the factory has and the spec leaves open."""
        known = fields(self.factory)
        taken = {name: value for name, value in values.items() if name in known}
        return spec(self.factory, **{**taken, **dict(self.kwargs)})

    def build(self, **kwargs: Any) -> Any:
        """Build the module; `kwargs` (such as `name=…`) are added."""
        return self.factory(**{**dict(self.kwargs), **kwargs})

    @property
    def name(self) -> str:
        return getattr(self.factory, "__name__", str(self.factory))


def spec(factory: Callable[..., Any], **kwargs: Any) -> Spec:
    """Build a spec of a class and hyperparameters: `spec(WindowAttention, window_size=7)`."""
    return Spec(factory, tuple(sorted(kwargs.items())))


def fields(factory: Any) -> tuple[str, ...]:
    """Return the names of the hyperparameters of a linen module class or function, in order."""
    if dataclasses.is_dataclass(factory):
        return tuple(
            f.name
            for f in dataclasses.fields(factory)
            if f.init and f.name not in ("parent", "name")
        )
    return tuple(inspect.signature(factory).parameters)


def defaults(factory: Any) -> dict[str, Any]:
    """Return the default of each hyperparameter; None where there is none."""
    if dataclasses.is_dataclass(factory):
        found: dict[str, Any] = {f.name: f.default for f in dataclasses.fields(factory)}
    else:
        found = {n: p.default for n, p in inspect.signature(factory).parameters.items()}
    missing = (dataclasses.MISSING, inspect.Parameter.empty)
    return {n: None if found[n] in missing else found[n] for n in fields(factory)}
