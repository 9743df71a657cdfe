"""Optimizers, schedules, and rules that single out parameters by path; all from optax."""

import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vitjax.train.layer_decay import layer_factors
from vitjax.train.state import map_named, named_leaves

Rules = Sequence[tuple[str, float]]
OPTIMIZERS = {
    "adamw": ("b1", "b2", "eps", "mu_dtype"),
    "adam": ("b1", "b2", "eps", "mu_dtype"),
    "sgd": ("b1", "nesterov", "mu_dtype"),
    "adafactor": ("b1", "b2", "mu_dtype"),
    "lion": ("b1", "b2", "mu_dtype"),
}
"""Optimizer → the hyperparameters of its own that it reads."""
SCHEDULES = {
    "cosine": ("end_factor",),
    "linear": ("end_factor",),
    "rsqrt": ("timescale",),
    "constant": (),
}
"""Schedule → the hyperparameters of its own that it reads."""
FACTOR_FROM = 32
"""Adafactor factors the second moment of a kernel whose two longest sides are at least this."""


def make_schedule(
    name: str,
    *,
    learning_rate: float,
    steps: int,
    warmup_steps: int = 0,
    cooldown_steps: int = 0,
    timescale: int = 10_000,
    start_factor: float = 0.0,
    end_factor: float = 0.0,
    warmup_prefix: bool = True,
    hold_steps: int = 1,
) -> Callable[[Any], Any]:
    """Make the learning rate by step: linear warm-up, the named decay, linear cooldown to 0.

    Args:
      name: "cosine" or "linear" fall to `end_factor · learning_rate`; "rsqrt" falls as
        1/√(1 + t / timescale), t counted from the end of the warm-up (Scaling Vision Transformers,
        arXiv:2106.04560, section 3.5: its cooldown makes one long run serve several budgets).
      cooldown_steps: the last steps, over which a factor falls from 1 to 0; as in big_vision,
        "rsqrt" goes on falling below it.
      steps: of the whole run, warm-up and cooldown included.
      start_factor: the warm-up starts at `start_factor · learning_rate`.
      warmup_prefix: the decay begins where the warm-up ends. False: it begins at step 0, and the
        warm-up replaces its first steps, as timm has it unless told otherwise.
      hold_steps: the rate changes every so many steps. With the steps of an epoch, this is the
        schedule by epoch of timm and of the recipes that use it.

    Raises:
      ValueError: the parts are longer than the run, or a value that the schedule does not read.
    """
    _refuse_unread(make_schedule, "schedule", name, SCHEDULES,
                   timescale=timescale, end_factor=end_factor)  # fmt: skip
    body = steps - warmup_steps - cooldown_steps
    if body < 0:
        raise ValueError(
            f"warmup_steps={warmup_steps} and cooldown_steps={cooldown_steps} exceed the run's "
            f"{steps} steps; shorten them, or train longer."
        )
    if hold_steps < 1 or (not warmup_steps and (start_factor or not warmup_prefix)):
        raise ValueError(
            f"hold_steps={hold_steps}, warmup_steps={warmup_steps}, start_factor={start_factor:g}, "
            f"warmup_prefix={warmup_prefix}: hold_steps is at least 1, and start_factor and "
            f"warmup_prefix=False need a warm-up."
        )
    before = 0 if warmup_prefix else warmup_steps  # steps of the decay that the warm-up replaces
    decay = {
        "cosine": lambda: optax.cosine_decay_schedule(
            learning_rate, max(body + before, 1), end_factor
        ),
        "linear": lambda: optax.linear_schedule(
            learning_rate, learning_rate * end_factor, body + before
        ),
        "rsqrt": lambda: lambda t: learning_rate / jnp.sqrt(1 + t / timescale),
        "constant": lambda: optax.constant_schedule(learning_rate),
    }[name]()
    parts: list[Callable[[Any], Any]] = [lambda t: decay(t + before)]
    boundaries = []
    if warmup_steps:
        start = start_factor * learning_rate
        parts.insert(0, optax.linear_schedule(start, learning_rate, warmup_steps))
        boundaries.append(warmup_steps)
    if cooldown_steps:
        late = body + before
        parts.append(lambda t: decay(t + late) * (1 - t / cooldown_steps))
        boundaries.append(steps - cooldown_steps)
    schedule = optax.join_schedules(parts, boundaries)
    return schedule if hold_steps == 1 else lambda step: schedule(step // hold_steps * hold_steps)


def make_optimizer(
    name: str,
    schedule: Callable[[Any], Any],
    params: Any,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    nesterov: bool = False,
    mu_dtype: str = "float32",
    weight_decay: float = 0.0,
    weight_decay_rules: Rules = ((".*", 1.0),),
    learning_rate_rules: Rules = ((".*", 1.0),),
    layer_decay: float = 1.0,
    layer_decay_style: str = "timm",
    clip_norm: float = 0.0,
) -> optax.GradientTransformation:
    """Make the optimizer as one optax chain: clip, precondition, decay, scale.

    docs/training.md has the formulas. Weight decay is decoupled, times the learning rate (AdamW,
    arXiv:1711.05101), except for "adam" and "sgd", where it is L2 regularisation: added to the
    gradient.

    Args:
      params: the parameters, or their shapes; rules are resolved against their paths.
      b1: decay of the first moment, or momentum.
      b2: decay of the second moment; of "adafactor" the largest one: 1 - t^-0.8 grows up to it.
      nesterov: momentum looks ahead ("sgd").
      mu_dtype: dtype of the first moment.
      weight_decay_rules, learning_rate_rules: (regular expression, factor); see `match_rules`.
      layer_decay, layer_decay_style: see `layer_decay.layer_factors`; 1 for none.
      clip_norm: largest global norm of the gradient; 0 for no clipping.

    Raises:
      ValueError: a value that this optimizer does not read, or rules that do not fit.
    """
    _refuse_unread(make_optimizer, "optimizer", name, OPTIMIZERS, b1=b1, b2=b2, eps=eps,
                   nesterov=nesterov, mu_dtype=mu_dtype)  # fmt: skip
    precondition = {
        "adamw": lambda: optax.scale_by_adam(b1, b2, eps, mu_dtype=mu_dtype),
        "adam": lambda: optax.scale_by_adam(b1, b2, eps, mu_dtype=mu_dtype),
        "sgd": lambda: _momentum(b1, nesterov, mu_dtype),
        "lion": lambda: optax.scale_by_lion(b1, b2, mu_dtype=mu_dtype),
        "adafactor": lambda: _scale_by_adafactor(b1, b2, mu_dtype),
    }[name]()
    factors = match_rules(params, weight_decay_rules, "weight_decay_rules")
    decay = _scaled_decay(weight_decay, factors) if weight_decay else optax.identity()
    rates = match_rules(params, learning_rate_rules, "learning_rate_rules")
    if layer_decay != 1:
        by_layer = layer_factors(params, layer_decay, layer_decay_style)
        rates = jax.tree.map(lambda rate, factor: rate * factor, rates, by_layer)
    coupled = name in ("adam", "sgd")
    return optax.chain(
        optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity(),
        *((decay, precondition) if coupled else (precondition, decay)),
        optax.stateless(lambda updates, _: jax.tree.map(lambda u, f: u * f, updates, rates)),
        optax.scale_by_learning_rate(schedule),
    )


def _momentum(b1: float, nesterov: bool, mu_dtype: str) -> optax.GradientTransformation:
    if nesterov and not b1:
        raise ValueError("optimizer 'sgd': nesterov=True needs a momentum, b1 above 0.")
    return optax.trace(b1, nesterov, mu_dtype) if b1 else optax.identity()


def _scale_by_adafactor(b1: float, b2: float, mu_dtype: str) -> optax.GradientTransformation:
    """Adafactor (arXiv:1804.04235) as Scaling Vision Transformers changed it (arXiv:2106.04560,
    appendix B): no scaling by the parameters, no clipping, a first moment, a bound on beta2.
    """

    def beta2(step: Any, power: Any) -> Any:
        return jnp.minimum(b2, 1.0 - (step + 1.0) ** -power)

    second = optax.scale_by_factored_rms(min_dim_size_to_factor=FACTOR_FROM, decay_rate_fn=beta2)
    first = optax.ema(b1, debias=False, accumulator_dtype=mu_dtype) if b1 else optax.identity()
    return optax.chain(second, first)


def _refuse_unread(
    function: Any, what: str, name: str, reads: dict[str, tuple[str, ...]], **values: Any
) -> None:
    """Raises ValueError if a value differs from its default and `name` does not read it."""
    parameters = inspect.signature(function).parameters
    for key, value in values.items():
        if key not in reads[name] and value != parameters[key].default:
            raise ValueError(
                f"The {what} {name!r} does not read {key}={value!r}; of its own it reads "
                f"{', '.join(reads[name]) or 'nothing'}. Leave {key} at "
                f"{parameters[key].default!r}, or choose another {what}."
            )


def _scaled_decay(weight_decay: float, factors: Any) -> optax.GradientTransformation:
    def add(updates: Any, params: Any) -> Any:
        return jax.tree.map(lambda u, p, f: u + weight_decay * f * p, updates, params, factors)

    return optax.stateless(add)


def fitting_rules(params: Any, rules: Rules) -> Rules:
    """Select the rules that a parameter takes; a model may lack parts that its family's name."""
    taken = {
        next((i for i, (pattern, _) in enumerate(rules) if re.fullmatch(pattern, path)), None)
        for path in named_leaves(params)
    }
    return tuple(rule for i, rule in enumerate(rules) if i in taken)


def match_rules(params: Any, rules: Rules, what: str) -> Any:
    """A tree like `params` of the rules' values: each parameter takes that of the first rule it
    matches.

    Args:
      rules: (regular expression, value); the expression matches a whole path such as
        "block_0/mixer/qkv/kernel".
      what: the rules' name, for errors.

    Raises:
      ValueError: a parameter that no rule matches, or a rule that no parameter takes.
    """
    used, unmatched = set(), []

    def value(path: str, _: Any) -> float:
        for i, (pattern, factor) in enumerate(rules):
            if re.fullmatch(pattern, path):
                used.add(i)
                return factor
        unmatched.append(path)
        return 0.0

    tree = map_named(value, params)
    if unmatched:
        raise ValueError(
            f"{what}: no rule matches {', '.join(unmatched[:5])}{' …' if unmatched[5:] else ''}; "
            "end the list with ('.*', …)."
        )
    if idle := [pattern for i, (pattern, _) in enumerate(rules) if i not in used]:
        raise ValueError(
            f"{what}: no parameter takes the rule {idle[0]!r}; it matches none, or earlier rules "
            "take all that it matches. `vitjax info MODEL` lists the paths."
        )
    return tree
