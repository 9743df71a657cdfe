"""Compare the plan's estimates with published times: `python benchmarks/plan_calibration.py`.

It compiles the steps of big_vision's ViT-S/16 on a v3-8 and of its Mixer-B/16 on a v3-128 (batch
1024 and 4096, bfloat16, as the docstrings of its configs describe the runs) and prints seconds and
factors, which are used in vitjax/plan/estimate.py.
"""

import os
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import flax.linen as nn
import jax.numpy as jnp

from vitjax.layers.mlp import Mlp
from vitjax.layers.norm import layer_norm
from vitjax.layers.patch_embed import PatchEmbed
from vitjax.layers.spec import spec
from vitjax.models import create_model
from vitjax.models.pyramid import Block
from vitjax.plan.plan import compile_step
from vitjax.plan.topology import open_topology
from vitjax.tasks.classification import classification
from vitjax.train import sharding
from vitjax.train.program import compile_program
from vitjax.training import load_config


class TokenMlp(nn.Module):
    """MLP over the tokens of each channel (MLP-Mixer, arXiv:2105.01601, eq. 1, first line)."""

    hidden: int = 384
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Any, train: bool = False) -> Any:
        mlp = Mlp(self.hidden / x.shape[1], dtype=self.dtype)
        return jnp.swapaxes(mlp(jnp.swapaxes(x, 1, 2), train), 1, 2)


class MixerB16(nn.Module):
    """MLP-Mixer-B/16 (arXiv:2105.01601, table 1)."""

    dtype: Any = jnp.bfloat16

    @nn.compact
    def __call__(self, images: Any, train: bool = False) -> Any:
        x = PatchEmbed(768, 16, dtype=self.dtype)(images.astype(self.dtype))
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        for _ in range(12):
            x = Block(spec(TokenMlp), mlp=spec(Mlp), dtype=self.dtype)(x, train)
        x = layer_norm().build(dtype=self.dtype)(x).mean(axis=1)
        return nn.Dense(1000, dtype=self.dtype)(x)


def seconds(model: Any, topology: str, batch: int) -> float:
    """Estimate the seconds of the model's training step."""
    there = open_topology(topology)
    sizes = {f"data.{k}": str(batch) for k in ("batch_size", "eval_batch_size")}
    config: Any = load_config("benchmarks/plan_recipes.py:b16", sizes)
    task = classification(model, num_classes=1000, image_size=224)
    mesh = sharding.make_mesh(config.mesh, there.devices)
    program = compile_program(config, task, mesh, 10_000)
    lowered = program.train_step.lower(program.state, program.batch_spec, program.key)
    found = compile_step(lowered, there, dict(mesh.shape), cache=True).estimate
    assert found is not None
    return found.seconds


def main() -> None:
    """Print the estimates and factors of both models."""
    vit = create_model("vit_s16", pool="gap", position="sincos2d", dtype=jnp.bfloat16)
    for name, model, topology, batch, published in (
        ("ViT-S/16", vit, "v3:2x2", 1024, (4576.0, 5338.0)),
        ("Mixer-B/16", MixerB16(), "v3:8x8", 4096, (48_900.0, 48_900.0)),
    ):
        estimate = seconds(model, topology, batch)
        factors = [batch / rate / estimate for rate in published]
        print(
            f"{name} {topology}: {estimate:.4f} s, published over estimated "
            f"{factors[1]:.2f} to {factors[0]:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
