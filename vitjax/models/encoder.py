"""The plain transformer encoder (ViT, arXiv:2010.11929, eq. 2 and 3): equal blocks, unrolled or
scanned.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.attention import parse_mixers
from vitjax.kernels.platform import inside_scan
from vitjax.layers.activations import ACTIVATIONS
from vitjax.layers.drop_path import drop_path_schedule
from vitjax.layers.init import Init, all_zeros, glorot_uniform, lecun_normal
from vitjax.layers.mlp import GatedMlp, Mlp
from vitjax.layers.norm import layer_norm
from vitjax.layers.spec import Spec, spec
from vitjax.models.pyramid import KERNELS, Block, DecayRules
from vitjax.names import check_choice


def _glorot_with_bias(fan_in: int, fan_out: int) -> dict[str, Any]:
    return {**glorot_uniform(fan_in, fan_out), "bias_init": nn.initializers.normal(1e-6)}


VIT_INIT = Init(
    dense=glorot_uniform,
    mlp=_glorot_with_bias,
    conv=lecun_normal,
    head=all_zeros,
    token=nn.initializers.zeros,
)
"""As the authors' JAX code draws them (google-research/vision_transformer, models_vit.py)."""

MIXER_OPTIONS = ("qkv_bias", "key_bias", "qk_norm", "attn_drop_rate")
"""Fields of `Encoder` that its mixers alone read."""


class Encoder(nn.Module):
    """Pre-norm blocks, for models to build on: `setup` makes them, `layers` runs them.

    Attributes:
      mixer: token mixer string; on sequences those that take one ("full").
      key_bias: False: no bias in the projection to k, where `qkv_bias` gives q and v theirs.
      mlp: "plain", or "swiglu" (`GatedMlp`, of DINOv2's largest model).
      act: of the plain MLP: "gelu", "gelu_tanh", "quick_gelu" or "silu" (see
        `layers/activations.py`).
      norm_epsilon: of all norms of tokens.
      layer_scale_init: see `Block`; None for none.
      drop_rate: dropout in each block; `drop_path_rate`: stochastic depth of the last block.
      remat: recompute blocks in the backward pass; `scan`: one compiled block for all layers,
        parameters stacked under `blocks` (`stack_layers` and `unstack_layers` convert).
      param_init, decay_rules: see `Pyramid`.
    """

    width: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    mlp: str = "plain"
    act: str = "gelu"
    norm_epsilon: float = 1e-6
    mixer: str = "full"
    qkv_bias: bool = True
    key_bias: bool = True
    qk_norm: bool = False
    layer_scale_init: float | None = None
    drop_rate: float = 0.0
    attn_drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    remat: bool = False
    scan: bool = False
    param_init: Init = VIT_INIT
    decay_rules: DecayRules = KERNELS
    dtype: Any = None

    def __post_init__(self) -> None:
        check_choice("mlp", self.mlp, ("plain", "swiglu"))
        check_choice("act", self.act, ACTIVATIONS)
        if self.mlp == "swiglu" and self.act != "gelu":
            raise ValueError(
                f"act={self.act!r} is of a plain MLP, and mlp='swiglu' has SiLU; leave act out."
            )
        super().__post_init__()

    def setup(self) -> None:
        self.mixers = cycle = self.cycle()
        block = spec(
            Block,
            mlp=self.mlp_part(),
            norm=layer_norm(self.norm_epsilon),
            layer_scale_init=self.layer_scale_init,
            param_init=self.param_init,
            dtype=self.dtype,
        )
        factory = (
            nn.remat(Block, static_argnums=(2,), prevent_cse=not self.scan) if self.remat else Block
        )
        if self.scan:
            mixer, *others = cycle
            if others:
                raise ValueError(
                    f"scan=True needs equal layers, and mixer={self.mixer!r} alternates; set "
                    f"scan=False."
                )
            self.blocks = factory(**dict(block.kwargs), mixer=mixer)
        else:
            self.block = [
                factory(**dict(block.kwargs), mixer=cycle[i % len(cycle)], drop_path_rate=rate)
                for i, rate in enumerate(self.path_rates())
            ]

    def mlp_part(self) -> Spec:
        """Return the MLP of a block."""
        mlp = spec(GatedMlp) if self.mlp == "swiglu" else spec(Mlp, act=ACTIVATIONS[self.act])
        return mlp.replace(mlp_ratio=self.mlp_ratio, drop_rate=self.drop_rate)

    def path_rates(self) -> tuple[float, ...]:
        """Return the rate of stochastic depth of each block."""
        return tuple(drop_path_schedule(self.drop_path_rate, self.depth))

    def cycle(self) -> tuple[Spec, ...]:
        """Return the mixers through which the blocks cycle."""
        options = {name: getattr(self, name) for name in MIXER_OPTIONS}
        options |= {"num_heads": self.num_heads, "drop_rate": self.drop_rate}
        return tuple(mixer.offer(**options) for mixer in parse_mixers(self.mixer, 1)[0])

    def effective(self) -> tuple[Any, ...]:
        """Return the hyperparameters in effect; see `create_model`."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        rest = {k: v for k, v in own.items() if k not in (*MIXER_OPTIONS, "mixer")}
        return type(self), rest, self.cycle()

    def layers(
        self, x: Float[Array, "B *S C"], train: bool, angles: Float[Array, "N r"] | None = None
    ) -> Float[Array, "B *S C"]:
        """Run the encoder's blocks, one after the other or scanned."""
        return self.outputs(x, train, angles=angles)[0]

    def outputs(
        self,
        x: Float[Array, "B *S C"],
        train: bool,
        of: tuple[int, ...] = (),
        angles: Float[Array, "N r"] | None = None,
    ) -> tuple[Float[Array, "B *S C"], tuple[Float[Array, "B *S C"], ...]]:
        """Run the blocks; return the last output and those of the named blocks.

        Args:
          angles: of the tokens' rotary positions; None for none.
        """
        kept = []
        if not self.scan:
            for block in self.block:
                x = block(x, train, None, angles)
                kept.append(x)
            return x, tuple(kept[i] for i in of)
        rates = jnp.asarray(self.path_rates()) if self.drop_path_rate else None

        def turn(block: Any, x: Array, rate: Any) -> tuple[Array, Array | None]:
            x = block(x, train, rate, angles)
            return x, x if of else None

        scan = nn.scan(
            turn,
            variable_axes={"params": 0, "intermediates": 0},
            split_rngs={"params": True, "dropout": True},
            length=self.depth,
        )
        with inside_scan():
            x, every = scan(self.blocks, x, rates)
        return x, () if every is None else tuple(every[i] for i in of)


def stack_layers(params: Mapping[str, Any]) -> dict[str, Any]:
    """Stack the parameters of a model with `scan=False` for the same model with `scan=True`.

    `block_{i}` becomes `blocks`.
    """
    names = sorted(
        (k for k in params if k.startswith("block_")), key=lambda k: int(k.split("_")[1])
    )
    rest = {k: v for k, v in params.items() if k not in names}
    return {
        **rest,
        "blocks": jax.tree.map(lambda *leaves: jnp.stack(leaves), *(params[k] for k in names)),
    }


def unstack_layers(params: Mapping[str, Any]) -> dict[str, Any]:
    """Unstack parameters: the inverse of `stack_layers`; unstacked parameters pass unchanged.

    The parameters of a backbone inside of a model are unstacked too.
    """
    if isinstance(params.get("backbone"), Mapping):
        params = {**params, "backbone": unstack_layers(params["backbone"])}
    if "blocks" not in params:
        return dict(params)
    rest = {k: v for k, v in params.items() if k != "blocks"}
    depth = jax.tree.leaves(params["blocks"])[0].shape[0]
    return {
        **rest,
        **{
            f"block_{i}": jax.tree.map(lambda leaf, i=i: leaf[i], params["blocks"])
            for i in range(depth)
        },
    }
