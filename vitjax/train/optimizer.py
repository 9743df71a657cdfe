"""Optimizers and schedules from optax, and rules that select parameters by path."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vitjax.train.layer_decay import layer_factors
from vitjax.train.state import EVERY, Trainable, map_named, named_leaves

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
    "polynomial": ("end_factor", "power"),
    "rsqrt": ("timescale",),
    "step": ("milestones", "gamma"),
    "constant": (),
}
"""Schedule → the hyperparameters of its own that it reads."""
FACTOR_FROM = 32
"""Adafactor factors the second moment of a kernel whose two longest sides are at least this."""


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Section `optimizer`; see `make_optimizer`."""

    name: str = "adamw"
    b1: float = 0.9  # decay of the first moment, or momentum
    b2: float = 0.999  # of the second; of "adafactor" the largest one: 1 - t^-0.8 grows up to it
    eps: float = 1e-8
    nesterov: bool = False  # momentum looks ahead ("sgd")
    mu_dtype: str = "float32"  # of the first moment
    weight_decay: float = 0.0
    weight_decay_rules: Rules = ()  # (regex, factor); empty: those of the model's family
    learning_rate_rules: Rules = ((".*", 1.0),)  # (regex, factor); of 0: not trained
    freeze: Sequence[str] = ()  # regexes of other parameters that are not trained
    layer_decay: float = 1.0  # factor of the learning rate from one layer to the one before it
    layer_decay_style: str = "timm"  # or "mae"; see vitjax/train/layer_decay.py
    clip_norm: float = 0.0  # largest global norm of the gradient; 0: no clipping
    accumulate: int = 1  # parts of a batch whose gradients are added up
    ema: float = 0.0  # decay of the averaged weights; 0: none
    ema_warmup: bool = True  # the decay is at most (1 + t) / (10 + t): 0.9996 at step 20,000


@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
    """Section `schedule`; see `make_schedule`."""

    name: str = "cosine"
    learning_rate: float = 1e-3
    warmup_steps: int = 0
    # The last steps, over which a factor falls from 1 to 0; as in big_vision, "rsqrt" goes on
    # falling below it.
    cooldown_steps: int = 0
    timescale: int = 10_000  # of "rsqrt"
    power: float = 0.9  # of "polynomial"
    # Of "step": the shares of the decay at which the rate is multiplied by gamma: of 12 epochs,
    # after 8 and 11, (8 / 12, 11 / 12).
    milestones: tuple[float, ...] = (2 / 3, 11 / 12)
    gamma: float = 0.1
    start_factor: float = 0.0  # of the learning rate, where the warm-up starts
    end_factor: float = 0.0  # of the learning rate, where the decay ends
    # The decay begins where the warm-up ends. False: it begins at step 0, and the warm-up replaces
    # its first steps, as timm has it unless told otherwise.
    warmup_prefix: bool = True
    # Steps between changes. With those of an epoch, this is the schedule by epoch of timm and of
    # the recipes that use it.
    hold_steps: int = 1


def make_schedule(config: ScheduleConfig, steps: int) -> Callable[[Any], Any]:
    """Build the learning rate schedule: linear warm-up, the named decay, linear cooldown to 0.

    Args:
      config: "cosine", "linear" and "polynomial", (1 - t / steps)^`power`, fall to
        `end_factor · learning_rate`; "rsqrt" falls as 1/√(1 + t / timescale), t counted from the
        end of the warm-up (Scaling Vision Transformers, arXiv:2106.04560, section 3.5: with a
        cooldown, one long run serves several budgets).
      steps: length of the whole run, warm-up and cooldown included.

    Raises:
      ValueError: the parts are longer than the run, the schedule does not read a given value, or
        its milestones are no shares in rising order.
    """
    _refuse_unread("schedule", config, SCHEDULES)
    c, learning_rate, warmup_steps = config, config.learning_rate, config.warmup_steps
    hold = c.hold_steps
    body = steps - warmup_steps - c.cooldown_steps
    if body < 0:
        raise ValueError(
            f"warmup_steps={warmup_steps} and cooldown_steps={c.cooldown_steps} exceed the run's "
            f"{steps} steps; shorten them, or train longer."
        )
    if hold < 1 or (not warmup_steps and (c.start_factor or not c.warmup_prefix)):
        raise ValueError(
            f"hold_steps={hold}, warmup_steps={warmup_steps}, start_factor={c.start_factor:g}, "
            f"warmup_prefix={c.warmup_prefix}: hold_steps is at least 1, and start_factor and "
            f"warmup_prefix=False need a warm-up."
        )
    if list(c.milestones) != sorted({*c.milestones}) or not all(0 < m < 1 for m in c.milestones):
        raise ValueError(
            f"config.schedule.milestones={c.milestones} must be shares of the run between 0 and 1 "
            f"in rising order, such as (0.67, 0.92)."
        )
    before = 0 if c.warmup_prefix else warmup_steps  # steps of the decay that the warm-up replaces
    decay = {
        "cosine": lambda: optax.cosine_decay_schedule(
            learning_rate, max(body + before, 1), c.end_factor
        ),
        "linear": lambda: optax.linear_schedule(
            learning_rate, learning_rate * c.end_factor, body + before
        ),
        "polynomial": lambda: optax.polynomial_schedule(
            learning_rate, learning_rate * c.end_factor, c.power, body + before
        ),
        "rsqrt": lambda: lambda t: learning_rate / jnp.sqrt(1 + t / c.timescale),
        "step": lambda: optax.piecewise_constant_schedule(
            learning_rate, {round(share * (body + before)): c.gamma for share in c.milestones}
        ),
        "constant": lambda: optax.constant_schedule(learning_rate),
    }[c.name]()
    parts: list[Callable[[Any], Any]] = [lambda t: decay(t + before)]
    boundaries = []
    if warmup_steps:
        start = c.start_factor * learning_rate
        parts.insert(0, optax.linear_schedule(start, learning_rate, warmup_steps))
        boundaries.append(warmup_steps)
    if c.cooldown_steps:
        late = body + before
        parts.append(lambda t: decay(t + late) * (1 - t / c.cooldown_steps))
        boundaries.append(steps - c.cooldown_steps)
    schedule = optax.join_schedules(parts, boundaries)
    return schedule if hold == 1 else lambda step: schedule(step // hold * hold)


def make_optimizer(
    config: OptimizerConfig,
    schedule: Callable[[Any], Any],
    params: Any,
    *,
    decay_rules: Rules = ((".*", 1.0),),
    trainable: Trainable = EVERY,
) -> optax.GradientTransformation:
    """Build the optimizer as one optax chain: clip, precondition, decay, scale.

    docs/training.md has the formulas. Weight decay is decoupled, times the learning rate (AdamW,
    arXiv:1711.05101), except for "adam" and "sgd", where it is L2 regularisation: added to the
    gradient.

    Args:
      params: the parameters, or their shapes; rules are resolved against their paths.
      config: section of the config; for its rules, (regular expression, factor), see `match_rules`,
        for its layer decay `layer_decay.layer_factors`.
      decay_rules: default of the config's `weight_decay_rules`.
      trainable: the parameters that it updates; see `trainable_params`.

    Raises:
      ValueError: the optimizer does not read a given value, or rules do not fit.
    """
    _refuse_unread("optimizer", config, OPTIMIZERS)
    c, b1, b2, mu_dtype = config, config.b1, config.b2, config.mu_dtype
    precondition = {
        "adamw": lambda: optax.scale_by_adam(b1, b2, c.eps, mu_dtype=mu_dtype),
        "adam": lambda: optax.scale_by_adam(b1, b2, c.eps, mu_dtype=mu_dtype),
        "sgd": lambda: _momentum(b1, c.nesterov, mu_dtype),
        "lion": lambda: optax.scale_by_lion(b1, b2, mu_dtype=mu_dtype),
        "adafactor": lambda: _scale_by_adafactor(b1, b2, mu_dtype),
    }[c.name]()
    rules = c.weight_decay_rules or decay_rules
    factors = trainable.of(match_rules(params, rules, "weight_decay_rules"))
    decay = _scaled_decay(c.weight_decay, factors) if c.weight_decay else optax.identity()
    rates = match_rules(params, c.learning_rate_rules, "learning_rate_rules")
    if c.layer_decay != 1:
        by_layer = layer_factors(params, c.layer_decay, c.layer_decay_style)
        rates = jax.tree.map(lambda rate, factor: rate * factor, rates, by_layer)
    rates = trainable.of(rates)
    coupled = c.name in ("adam", "sgd")
    return optax.chain(
        optax.clip_by_global_norm(c.clip_norm) if c.clip_norm else optax.identity(),
        *((decay, precondition) if coupled else (precondition, decay)),
        optax.stateless(lambda updates, _: jax.tree.map(lambda u, f: u * f, updates, rates)),
        optax.scale_by_learning_rate(schedule),
    )


def trainable_params(
    params: Any, learning_rate_rules: Rules = ((".*", 1.0),), freeze: Sequence[str] = ()
) -> Trainable:
    """Select the trained parameters: those whose learning rate is not 0.

    Args:
      params: the parameters, or their shapes.
      freeze: regular expressions of whole paths of other parameters that are not trained.

    Raises:
      ValueError: rules or expressions do not fit, or no parameter is left to train.
    """
    rates = named_leaves(match_rules(params, learning_rate_rules, "learning_rate_rules"))
    for pattern in freeze:
        if not any(re.fullmatch(pattern, path) for path in rates):
            raise ValueError(
                f"config.optimizer.freeze: no parameter matches {pattern!r}. `vitjax info MODEL` "
                f"lists the paths."
            )
    still = {path for path in rates if any(re.fullmatch(pattern, path) for pattern in freeze)}
    paths = frozenset(path for path, rate in rates.items() if rate and path not in still)
    if not paths:
        raise ValueError(
            "config.optimizer.freeze and learning_rate_rules leave nothing to train; let some "
            "parameters out."
        )
    return Trainable(None if len(paths) == len(rates) else paths)


def _momentum(b1: float, nesterov: bool, mu_dtype: str) -> optax.GradientTransformation:
    if nesterov and not b1:
        raise ValueError("optimizer 'sgd': nesterov=True needs a momentum, b1 above 0.")
    return optax.trace(b1, nesterov, mu_dtype) if b1 else optax.identity()


def _scale_by_adafactor(b1: float, b2: float, mu_dtype: str) -> optax.GradientTransformation:
    """Build Adafactor (arXiv:1804.04235) as modified by Scaling Vision Transformers.

    The changes (arXiv:2106.04560, appendix B): no scaling by the parameters, no clipping, a first
    moment, a bound on beta2.
    """

    def beta2(step: Any, power: Any) -> Any:
        return jnp.minimum(b2, 1.0 - (step + 1.0) ** -power)

    second = optax.scale_by_factored_rms(min_dim_size_to_factor=FACTOR_FROM, decay_rate_fn=beta2)
    first = optax.ema(b1, debias=False, accumulator_dtype=mu_dtype) if b1 else optax.identity()
    return optax.chain(second, first)


def _refuse_unread(
    what: str, config: OptimizerConfig | ScheduleConfig, menu: Mapping[str, Sequence[str]]
) -> None:
    """Raise ValueError if a value differs from its default and the named entry does not read it.

    Args:
      menu: name → the fields that it reads, without those that all names read.
    """
    reads, some = menu[config.name], {key for keys in menu.values() for key in keys}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name in some and field.name not in reads and value != field.default:
            raise ValueError(
                f"The {what} {config.name!r} does not read {field.name}={value!r}; of its own it "
                f"reads {', '.join(reads) or 'nothing'}. Leave {field.name} at {field.default!r}, "
                f"or choose another {what}."
            )


def _scaled_decay(weight_decay: float, factors: Any) -> optax.GradientTransformation:
    def add(updates: Any, params: Any) -> Any:
        return jax.tree.map(lambda u, p, f: u + weight_decay * f * p, updates, params, factors)

    return optax.stateless(add)


def fitting_rules(params: Any, rules: Rules) -> Rules:
    """Select the rules that match a parameter; a model may lack parts that its family has."""
    taken = {
        next((i for i, (pattern, _) in enumerate(rules) if re.fullmatch(pattern, path)), None)
        for path in named_leaves(params)
    }
    return tuple(rule for i, rule in enumerate(rules) if i in taken)


def match_rules(params: Any, rules: Rules, what: str) -> Any:
    """Build a tree like `params` with the value of the first rule that matches each parameter.

    Args:
      rules: (regular expression, value); the expression matches a whole path such as
        "block_0/mixer/qkv/kernel".
      what: name of the rules, for errors.

    Raises:
      ValueError: no rule matches a parameter, or a rule is the first match of no parameter.
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
            f"{what}: the rule {idle[0]!r} is never used; no parameter matches it, or earlier "
            "rules match the same ones. `vitjax info MODEL` lists the paths."
        )
    return tree
