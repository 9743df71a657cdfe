"""Fits of scaling laws by the Huber loss of log losses, from many starts.

The estimator of Hoffmann et al. (arXiv:2203.15556, section D.2): the sum of the Huber losses, with
a δ of 1e-3, of the differences of predicted and measured log loss; with so small a δ it is nearly
the sum of absolute differences, which outliers hardly move. Its sum, and not its mean, is minimised
to convergence in float64: with a mean, an optimizer's usual tolerance stops early, which is how the
published parameters came to be wrong (Besiroglu et al., arXiv:2404.10102).

All starts descend by damped Gauss-Newton steps, and the best of them goes on by L-BFGS, which no
longer moves it where it was an optimum. L-BFGS from all starts finds the same one, and takes 15
times as long.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Float64

from vitjax.scaling.laws import Law

DELTA = 1e-3
ITERATIONS = 500
"""Of L-BFGS, at most."""
STEPS = 100
"""Of Gauss-Newton."""
SAME = 1e-6
"""Relative difference of objectives within which two starts reached the same optimum."""


class Fit(NamedTuple):
    """Fitted law.

    Attributes:
      theta: internal parameters; `centre`: mean logarithms of the inputs, see `Law`.
      objective: sum of Huber losses, divided by δ.
      objectives: those that all starts reached.
    """

    law: Law
    theta: Float64[np.ndarray, "p"]
    centre: Float64[np.ndarray, "k"]
    objective: float
    objectives: Float64[np.ndarray, "S"]

    @property
    def parameters(self) -> dict[str, float]:
        """Natural parameters by name."""
        return dict(zip(self.law.names, self.law.natural(self.theta, self.centre).tolist()))

    @property
    def converged(self) -> float:
        """Share of the starts that reached the best optimum."""
        best = self.objective * (1 + SAME) + 1e-12
        return float(np.mean(self.objectives <= best))

    def predict(self, x: Float[np.ndarray, "M k"]) -> Float64[np.ndarray, "M"]:
        """Predict the loss.

        Args:
          x: inputs, not their logarithms.
        """
        return predict(self.law, self.theta[None], self.centre, x)[0]


def predict(
    law: Law, thetas: Float[np.ndarray, "R p"], centre: np.ndarray, x: Float[np.ndarray, "M k"]
) -> Float64[np.ndarray, "R M"]:
    """Predict the losses of inputs for several parameters."""
    with jax.enable_x64(True):
        points = jnp.asarray(np.log(x) - centre)
        found = jax.vmap(lambda theta: law.log_loss(theta, points))(jnp.asarray(thetas))
        return np.exp(np.asarray(found))


def fit(law: Law, x: Float[np.ndarray, "M k"], loss: Float[np.ndarray, "M"]) -> Fit:
    """Fit a law, from all starts of its grid.

    Args:
      x: inputs, not their logarithms.
      loss: measured, above 0.

    Raises:
      ValueError: a number is not positive and finite, or there are too few different inputs.
    """
    check(law, x, loss)
    centre, y = np.log(x).mean(axis=0), np.log(loss)
    with jax.enable_x64(True):
        points, target = jnp.asarray(np.log(x) - centre), jnp.asarray(y)
        starts = jnp.asarray(law.grid(float(y.min())))
        targets = jnp.broadcast_to(target, (len(starts), len(y)))
        once = jnp.ones_like(targets)
        thetas, values = _gauss_newton(law.log_loss, starts, points, targets, once)
        values = np.where(np.isfinite(values), values, np.inf)
        theta, value = _lbfgs(law.log_loss, thetas[int(np.argmin(values))], points, target)
        return Fit(law, np.asarray(theta), centre, float(value), values)


def refit(
    found: Fit,
    x: Float[np.ndarray, "M k"],
    loss: Float[np.ndarray, "R M"],
    weights: Float[np.ndarray, "R M"],
) -> Float64[np.ndarray, "R p"]:
    """Fit the law again to each of R resamples, from the parameters found.

    Args:
      loss: of each resample.
      weights: what each point counts in each resample.
    """
    with jax.enable_x64(True):
        points, y = jnp.asarray(np.log(x) - found.centre), jnp.asarray(np.log(loss))
        starts = jnp.broadcast_to(jnp.asarray(found.theta), (len(weights), len(found.theta)))
        drawn = jnp.asarray(weights, float)
        return np.asarray(_gauss_newton(found.law.log_loss, starts, points, y, drawn)[0])


def check(law: Law, x: Any, loss: Any) -> None:
    """Raise ValueError unless a law can be fitted to the points."""
    if not (
        np.isfinite(x).all() and np.isfinite(loss).all() and (x > 0).all() and (loss > 0).all()
    ):
        raise ValueError("A law is fitted to positive, finite numbers; leave the other cells out.")
    different, needed = len(np.unique(x, axis=0)), len(law.names)
    if different <= needed:
        raise ValueError(
            f"{law.formula} has {needed} parameters, and there are {different} different points; "
            f"it needs {needed + 1} at least. Finish more cells."
        )


def _objective(log_loss: Any, theta: Array, x: Array, y: Array) -> Array:
    return jnp.sum(optax.losses.huber_loss(log_loss(theta, x), y, delta=DELTA)) / DELTA


@functools.partial(jax.jit, static_argnums=0)
def _gauss_newton(
    log_loss: Any, starts: Array, x: Array, y: Array, weights: Array
) -> tuple[Array, Array]:
    """Minimise weighted sums, with a start, targets and weights each.

    A Huber loss is at most the parabola through its value and slope whose curvature is
    min(1, δ / |r|), so that reweighted least squares descend; steps that do not are refused, and
    the damping grows.

    Returns:
      Parameters and objectives.
    """

    def one(theta: Array, y: Array, weight: Array) -> tuple[Array, Array]:
        def loss(theta: Array) -> tuple[Array, Array]:
            r = log_loss(theta, x) - y
            return jnp.sum(weight * optax.losses.huber_loss(r, delta=DELTA)) / DELTA, r

        def body(_: Any, carry: Any) -> Any:
            theta, damping = carry
            value, r = loss(theta)
            slopes = jax.jacfwd(log_loss)(theta, x)
            w = weight * jnp.minimum(1.0, DELTA / jnp.maximum(jnp.abs(r), 1e-300))
            normal = slopes.T @ (w[:, None] * slopes)
            scale = jnp.diag(normal) + 1e-12
            step = jnp.linalg.solve(normal + jnp.diag(damping * scale), slopes.T @ (w * r))
            good = loss(theta - step)[0] < value
            return (
                jnp.where(good, theta - step, theta),
                jnp.clip(jnp.where(good, damping / 4, damping * 4), 1e-12, 1e6),
            )

        theta = jax.lax.fori_loop(0, STEPS, body, (theta, jnp.asarray(1e-3)))[0]
        return theta, loss(theta)[0]

    return jax.vmap(one)(starts, y, weights)


@functools.partial(jax.jit, static_argnums=0)
def _lbfgs(log_loss: Any, theta: Array, x: Array, y: Array) -> tuple[Array, Array]:
    """Minimise the sum from a start, and return the parameters and the objective."""
    search = optax.scale_by_zoom_linesearch(max_linesearch_steps=20)
    optimizer = optax.lbfgs(memory_size=10, linesearch=search)

    def value(theta: Array) -> Array:
        return jnp.sum(optax.losses.huber_loss(log_loss(theta, x), y, delta=DELTA)) / DELTA

    gradient = optax.value_and_grad_from_state(value)

    def going(carry: Any) -> Array:
        _, _, step, gain = carry
        return (step < ITERATIONS) & (gain > 1e-12)

    def body(carry: Any) -> Any:
        theta, state, step, _ = carry
        before, grad = gradient(theta, state=state)
        updates, state = optimizer.update(
            grad, state, theta, value=before, grad=grad, value_fn=value
        )
        gain = (before - optax.tree_utils.tree_get(state, "value")) / before
        return optax.apply_updates(theta, updates), state, step + 1, gain

    first = (theta, optimizer.init(theta), 0, jnp.ones(()))
    found = jax.lax.while_loop(going, body, first)[0]
    better = value(found) < value(theta)  # not where the start has a sum of 0
    found = jnp.where(better, found, theta)
    return found, value(found)
