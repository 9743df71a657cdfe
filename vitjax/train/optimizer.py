"""Optimizers, schedules, and rules that single out parameters by path; all from optax."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vitjax.train.state import map_named

Rules = Sequence[tuple[str, float]]
OPTIMIZERS = ("adamw", "adam", "sgd", "adafactor", "lion")
SCHEDULES = ("cosine", "linear", "rsqrt", "constant")


def make_schedule(
    name: str,
    *,
    learning_rate: float,
    steps: int,
    warmup_steps: int = 0,
    cooldown_steps: int = 0,
    timescale: int = 10_000,
    end_factor: float = 0.0,
) -> Callable[[Any], Any]:
    """Learning rate by step: linear warm-up from 0, then the named decay, then linear cooldown to
    0.

    Args:
      name: "cosine" or "linear" fall to `end_factor · learning_rate`; "rsqrt" falls as
        1/√(1 + t / timescale), t counted from the end of the warm-up (Scaling Vision Transformers,
        arXiv:2106.04560, section 3.5: its cooldown makes one long run serve several budgets).
      steps: of the whole run, warm-up and cooldown included.

    Raises:
      ValueError: warm-up and cooldown are longer than the run.
    """
    body = steps - warmup_steps - cooldown_steps
    if body < 0:
        raise ValueError(
            f"warmup_steps={warmup_steps} and cooldown_steps={cooldown_steps} exceed the run's "
            f"{steps} steps; shorten them, or train longer."
        )
    decay = {
        "cosine": lambda: optax.cosine_decay_schedule(learning_rate, max(body, 1), end_factor),
        "linear": lambda: optax.linear_schedule(learning_rate, learning_rate * end_factor, body),
        "rsqrt": lambda: lambda t: learning_rate / jnp.sqrt(1 + t / timescale),
        "constant": lambda: optax.constant_schedule(learning_rate),
    }[name]()
    parts, boundaries = [decay], []
    if warmup_steps:
        parts.insert(0, optax.linear_schedule(0.0, learning_rate, warmup_steps))
        boundaries.append(warmup_steps)
    if cooldown_steps:
        parts.append(optax.linear_schedule(float(decay(body)), 0.0, cooldown_steps))
        boundaries.append(steps - cooldown_steps)
    return optax.join_schedules(parts, boundaries)


def make_optimizer(
    name: str,
    schedule: Callable[[Any], Any],
    params: Any,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    mu_dtype: str = "float32",
    weight_decay: float = 0.0,
    weight_decay_rules: Rules = ((".*", 1.0),),
    learning_rate_rules: Rules = ((".*", 1.0),),
    clip_norm: float = 0.0,
) -> optax.GradientTransformation:
    """The optimizer as one optax chain: clip, precondition, decay, scale.

    Weight decay is decoupled, times the learning rate (AdamW, arXiv:1711.05101), except for "adam"
    and "sgd", where it is L2 regularisation: added to the gradient.

    Args:
      params: the parameters, or their shapes; rules are resolved against their paths.
      b1: momentum of "sgd" and "adafactor" too.
      mu_dtype: dtype of the first moment.
      weight_decay_rules, learning_rate_rules: (regular expression, factor); see `match_rules`.
      clip_norm: largest global norm of the gradient; 0 for no clipping.
    """
    precondition = {
        "adamw": lambda: optax.scale_by_adam(b1, b2, eps, mu_dtype=mu_dtype),
        "adam": lambda: optax.scale_by_adam(b1, b2, eps, mu_dtype=mu_dtype),
        "sgd": lambda: optax.trace(b1, accumulator_dtype=mu_dtype) if b1 else optax.identity(),
        "lion": lambda: optax.scale_by_lion(b1, b2, mu_dtype=mu_dtype),
        # Without parameter scaling and with momentum, as arXiv:2106.04560 (appendix B) changed it.
        "adafactor": lambda: optax.chain(
            optax.scale_by_factored_rms(),
            optax.clip_by_block_rms(1.0),
            optax.ema(b1, debias=False, accumulator_dtype=mu_dtype) if b1 else optax.identity(),
        ),
    }[name]()
    factors = match_rules(params, weight_decay_rules, "weight_decay_rules")
    decay = _scaled_decay(weight_decay, factors) if weight_decay else optax.identity()
    rates = match_rules(params, learning_rate_rules, "learning_rate_rules")
    coupled = name in ("adam", "sgd")
    return optax.chain(
        optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity(),
        *((decay, precondition) if coupled else (precondition, decay)),
        optax.stateless(lambda updates, _: jax.tree.map(lambda u, f: u * f, updates, rates)),
        optax.scale_by_learning_rate(schedule),
    )


def _scaled_decay(weight_decay: float, factors: Any) -> optax.GradientTransformation:
    def add(updates: Any, params: Any) -> Any:
        return jax.tree.map(lambda u, p, f: u + weight_decay * f * p, updates, params, factors)

    return optax.stateless(add)


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
