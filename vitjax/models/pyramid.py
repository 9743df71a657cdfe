"""`Block`, `Stage` and `Pyramid`, which compose backbones; a family's file sets their parts."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.attention import Mixers, block_parts
from vitjax.kernels.platform import inside_scan
from vitjax.layers.conv import depthwise_conv
from vitjax.layers.drop_path import drop_path, drop_path_schedule
from vitjax.layers.init import NORMAL, Init
from vitjax.layers.mlp import Mlp
from vitjax.layers.norm import layer_norm, layer_scale, normalize
from vitjax.layers.spec import Spec, spec
from vitjax.names import check_choice

DecayRules = tuple[tuple[str, float], ...]
KERNELS: DecayRules = ((".*/kernel", 1.0), (".*", 0.0))
"""Weight decay of kernels alone: not of biases, norms, tokens and tables."""


class Block(nn.Module):
    """Block of position convolution, token mixer and MLP, each with a residual connection.

    Attributes:
      mixer: the token mixer.
      mlp: the MLP, or None for a block of a mixer alone.
      norm: the norm of the mixer's and of the MLP's branch; None for none.
      norm_place: "before" each branch, "after" it (Swin V2, eq. 1), or after the residual "sum"
        (the first transformers).
      cpe_kernel_size: kernel of a depthwise convolution added to x first (conditional positions); 0
        for none.
      layer_scale_init: first value of a learned factor per channel on each branch (CaiT,
        arXiv:2103.17239, eq. 4).
      drop_path_rate: stochastic depth of both branches; a call may override it, as the scan over
        layers does.
    """

    mixer: Spec
    mlp: Spec | None = spec(Mlp)
    norm: Spec | None = layer_norm()
    norm_place: str = "before"
    cpe_kernel_size: int = 0
    layer_scale_init: float | None = None
    drop_path_rate: float = 0.0
    param_init: Init = NORMAL
    dtype: Any = None

    def __post_init__(self) -> None:
        check_choice("norm_place", self.norm_place, ("before", "after", "sum"))
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B *S C"],
        train: bool = False,
        drop_path_rate: Float[Array, ""] | None = None,
        angles: Float[Array, "N r"] | None = None,
    ) -> Float[Array, "B *S C"]:
        """Compute the block; the mixer gets the angles of rotary positions, if there are any."""

        def residual(x: Array, branch: Callable[..., Array], number: int) -> Array:
            def norm(x: Array, place: str) -> Array:
                if self.norm is None or place != self.norm_place:
                    return x
                own = self.norm.default(dtype=self.dtype).build(name=f"norm{number}")
                return normalize(own, x, train)

            y = norm(branch(norm(x, "before"), train), "after")
            y = layer_scale(self, y, f"layer_scale{number}", self.layer_scale_init)
            if train and (drop_path_rate is not None or self.drop_path_rate):
                rate = self.drop_path_rate if drop_path_rate is None else drop_path_rate
                y = drop_path(y, rate, self.make_rng("dropout"))
            return norm(x + y, "sum")

        if self.cpe_kernel_size:
            x = x + depthwise_conv(self.cpe_kernel_size, "cpe", self.param_init, self.dtype)(x)
        context = dict(param_init=self.param_init, dtype=self.dtype)
        mixer = self.mixer.default(**context).build(name="mixer")
        x = residual(x, mixer if angles is None else partial(mixer, angles=angles), 1)
        if self.mlp is not None:
            x = residual(x, self.mlp.default(**context).build(name="mlp"), 2)
        return x


class ClassBlock(nn.Module):
    """Class attention and an MLP update the class token; the other tokens pass unchanged.

    See CaiT, arXiv:2103.17239, section 3.

    Attributes:
      layer_scale_init: see `Block`.
    """

    mixer: Spec
    mlp: Spec
    norm: Spec
    layer_scale_init: float | None = None
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B N C"], train: bool = False) -> Float[Array, "B N C"]:
        def build(part: Spec, name: str) -> Any:
            return part.default(param_init=self.param_init, dtype=self.dtype).build(name=name)

        scaled = partial(layer_scale, self, init=self.layer_scale_init)
        attended = build(self.mixer, "mixer")(build(self.norm, "norm1")(x), train)
        token = x[:, :1] + scaled(attended, name="layer_scale1")
        mixed = build(self.mlp, "mlp")(build(self.norm, "norm2")(token), train)
        token += scaled(mixed, name="layer_scale2")
        return jnp.concatenate([token, x[:, 1:]], axis=1)


class Stage(nn.Module):
    """Stage of `depth` blocks at one resolution, cycling through the stage's mixers.

    Attributes:
      block: a `Block` spec with all but mixer and drop path rate, or one for each mixer. A mixer
        that is a complete branch (norm or MLP included) replaces parts of it, see `block_parts`.
      drop_path_rate: one rate per block.
      remat: recompute each block in the backward pass instead of storing its activations.
      scan: compile one cycle and loop over it, if there are at least two. Parameters keep their
        names and shapes; the program stacks them. Blocks after the last whole cycle follow
        unrolled.
    """

    block: Spec | tuple[Spec, ...]
    mixers: tuple[Spec, ...]
    drop_path_rate: tuple[float, ...]
    remat: bool = False
    scan: bool = False
    param_init: Init = NORMAL
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "B *S C"], train: bool = False) -> Float[Array, "B *S C"]:
        depth, cycle = len(self.drop_path_rate), len(self.mixers)
        turns = depth // cycle if self.scan and not self.is_initializing() else 0
        begin = turns * cycle if turns > 1 else 0
        if begin:
            x = self._scan(x, train, turns)
        factory = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
        for i in range(begin, depth):
            x = factory(**self.options(i), name=f"block_{i}")(x, train)
        return x

    def options(self, i: int) -> dict[str, Any]:
        """Collect all hyperparameters of block i."""
        mixer = self.mixers[i % len(self.mixers)]
        blocks = (self.block,) if isinstance(self.block, Spec) else self.block
        return {
            **dict(blocks[i % len(blocks)].kwargs),
            **block_parts(mixer),
            "mixer": mixer,
            "drop_path_rate": self.drop_path_rate[i],
            "param_init": self.param_init,
            "dtype": self.dtype,
        }

    def _scan(self, x: Array, train: bool, turns: int) -> Array:
        """Run the first `turns` cycles as one loop over their stacked variables."""
        cycle = len(self.mixers)
        length = turns * cycle
        blocks = [Block(**self.options(k), parent=None) for k in range(cycle)]
        # Each block reads its own variables; what it sows and its new statistics go back to it.
        kept = {c: v for c, v in self.variables.items() if c != "intermediates" and "block_0" in v}
        written = [
            c for c in ("intermediates", *kept) if c != "params" and self.is_mutable_collection(c)
        ]
        variables = [
            jax.tree.map(
                lambda *leaves: jnp.stack(leaves),
                *({c: v[f"block_{i}"] for c, v in kept.items()} for i in range(k, length, cycle)),
            )
            for k in range(cycle)
        ]
        rates, keys = None, None
        if train and any(self.drop_path_rate):
            rates = jnp.asarray(self.drop_path_rate[:length]).reshape(turns, cycle)
        if train and self.has_rng("dropout"):
            keys = jax.random.split(self.make_rng("dropout"), (turns, cycle))

        def run(block: Any, x: Array, own: Any, rate: Any, key: Any) -> Any:
            rngs = {} if key is None else {"dropout": key}
            return block.apply(own, x, train, rate, rngs=rngs, mutable=written)

        def turn(x: Array, given: Any) -> tuple[Array, list[Any]]:
            own, rate, key = given
            news = []
            for k, block in enumerate(blocks):
                one = partial(run, block)
                one = jax.checkpoint(one, prevent_cse=False) if self.remat else one
                own_rate, own_key = (None if t is None else t[k] for t in (rate, key))
                x, new = one(x, own[k], own_rate, own_key)
                news.append(new)
            return x, news

        with inside_scan():
            x, news = jax.lax.scan(turn, x, (variables, rates, keys), length=turns)
        for k, new in enumerate(news):
            for t in range(turns):
                for c, tree in new.items():
                    value = jax.tree.map(lambda leaf, t=t: leaf[t], tree)
                    self.put_variable(c, f"block_{t * cycle + k}", value)
        return x


class Pyramid(nn.Module):
    """Hierarchical backbone: stem, stages, downsampling between them, norm and head.

    Every part is a spec; a tuple among its hyperparameters has one value per stage. `num_heads`
    is the default of each mixer that has heads. Parameters are `stem`,
    `stage_{i}/block_{j}`, `downsample_{i}` (before stage i ≥ 1), `norm`, `head`.

    Attributes:
      dims, depths: width and number of blocks of each stage.
      num_heads: heads of each stage.
      mixers: one tuple per stage, as `parse_mixers` returns it.
      block: `Block` spec without its mixer; per-stage tuples allowed. A tuple has one tuple per
        stage, of the blocks for the stage's mixers.
      stem, downsample: modules `[B, H, W, c] → [B, h, w, dim]`, built with `width`.
      stem_stride: pixels of the image per pixel of the first map; every later one halves it.
      num_frames: of the clips `[B, T, H, W, c]` that it sees, unless they are longer or shorter; 0
        for images.
      norm: norm before pooling.
      norm_pooled: the head reads the norm of the last map's mean, not the mean of its norm
        (ConvNeXt).
      stage_norm: the norm follows each stage, as a part of its map, `norm_{i}` (PVT v2, MiT).
      feature_norm: norm of the maps of `features`, `feature_norm_{i}`, but not of the next stage's
        input, as in backbones under dense heads (Swin).
      drop_path_rate: stochastic depth of the last block, linear from 0 in the first; or one rate
        for each block.
      remat, scan: see `Stage`.
      image_size: image size of the tables tied to it, if there are any; images of other sizes work
        too.
      param_init: initialisation of the family's parameters.
      decay_rules: weight decay factors of the family's parameters, (regular expression, factor);
        see `vitjax.train.optimizer.match_rules`.
    """

    dims: tuple[int, ...]
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    mixers: Mixers
    stem: Spec
    downsample: Spec
    block: Spec | tuple[tuple[Spec, ...], ...] = spec(Block)
    norm: Spec = layer_norm()
    norm_pooled: bool = False
    stage_norm: bool = False
    feature_norm: Spec | None = None
    stem_stride: int = 4
    num_frames: int = 0
    num_classes: int = 1000
    image_size: int | tuple[int, int] = 224
    drop_path_rate: float | tuple[float, ...] = 0.0
    remat: bool = False
    scan: bool = False
    param_init: Init = NORMAL
    decay_rules: DecayRules = KERNELS
    dtype: Any = None

    def __post_init__(self) -> None:
        sizes = self.dims, self.depths, self.num_heads
        if len(set(map(len, sizes))) > 1:
            raise ValueError(
                f"dims={self.dims}, depths={self.depths} and num_heads={self.num_heads} must have "
                f"one value for each stage."
            )
        if self.norm_pooled and self.stage_norm:
            raise ValueError("norm_pooled and stage_norm exclude each other: leave one out.")
        super().__post_init__()

    def setup(self) -> None:
        stages, downsamples = [], []
        for i, dim in enumerate(self.dims):
            resize = (
                (self.stem if i == 0 else self.downsample)
                .at(i)
                .default(width=dim, param_init=self.param_init, dtype=self.dtype)
            )
            downsamples.append(resize.build(name=f"downsample_{i}" if i else "stem"))
            stages.append(self.stage(i).build(name=f"stage_{i}"))
        self.resizes, self.stages = downsamples, stages
        norm = self.norm.default(dtype=self.dtype)
        if self.stage_norm:
            self.stage_norms = [norm.build(name=f"norm_{i}") for i in range(len(self.dims))]
        else:
            self.final_norm = norm.build(name="norm")
        if self.feature_norm is not None:
            norm = self.feature_norm.default(dtype=self.dtype)
            self.feature_norms = [
                norm.build(name=f"feature_norm_{i}") for i in range(len(self.dims))
            ]
        if self.num_classes:
            self.head = self.classifier()

    def classifier(self) -> Any:
        """Build the head, which reads the mean of the last map."""
        init = self.param_init.of_head(self.dims[-1], self.num_classes)
        return nn.Dense(self.num_classes, **init, dtype=self.dtype, name="head")

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels of the image per pixel of each map of `features`."""
        return tuple(self.stem_stride << i for i in range(len(self.dims)))

    def stage(self, i: int) -> Spec:
        """Build the spec of stage i."""
        begin, depth, rates = sum(self.depths[:i]), self.depths[i], self.drop_path_rate
        if not isinstance(rates, tuple):
            rates = drop_path_schedule(rates, sum(self.depths))
        return spec(
            Stage,
            block=self.block.at(i) if isinstance(self.block, Spec) else self.block[i],
            mixers=tuple(m.at(i).default(num_heads=self.num_heads[i]) for m in self.mixers[i]),
            drop_path_rate=tuple(rates[begin : begin + depth]),
            remat=self.remat,
            scan=self.scan,
            param_init=self.param_init,
            dtype=self.dtype,
        )

    def effective(self) -> tuple[Any, ...]:
        """Collect the hyperparameters that the model uses; see `create_model`."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        rest = {k: v for k, v in own.items() if k not in ("mixers", "block")}
        stages = [self.stage(i).build(parent=None) for i in range(len(self.dims))]
        blocks = [[stage.options(i) for i in range(len(stage.drop_path_rate))] for stage in stages]
        return type(self), rest, blocks

    def features(
        self, images: Float[Array, "B *S c"], train: bool = False
    ) -> tuple[Float[Array, "..."], ...]:
        """Compute the map after each stage, finest first."""
        maps = self._maps(images, train)
        if self.feature_norm is None:
            return maps
        norms = zip(self.feature_norms, maps, strict=True)
        return tuple(normalize(norm, x, train) for norm, x in norms)

    def _maps(self, images: Array, train: bool) -> tuple[Array, ...]:
        x, maps = images.astype(self.dtype or images.dtype), []
        for i, (resize, stage) in enumerate(zip(self.resizes, self.stages, strict=True)):
            x = stage(resize(x, train), train)
            if self.stage_norm:
                x = normalize(self.stage_norms[i], x, train)
            maps.append(x)
        return tuple(maps)

    def head_features(
        self, images: Float[Array, "B *S c"], train: bool = False
    ) -> Float[Array, "B *s C"]:
        """Compute the last map, normalised, whose mean over positions the head reads.

        With `norm_pooled`, each position is what the head would read of that position alone.
        """
        x = self._maps(images, train)[-1]
        return x if self.stage_norm else normalize(self.final_norm, x, train)

    def __call__(self, images: Float[Array, "B *S c"], train: bool = False) -> Float[Array, "B K"]:
        """Compute logits `[B, num_classes]`, or pooled features if `num_classes` is 0."""
        axes = tuple(range(1, images.ndim - 1))
        if self.norm_pooled:
            x = jnp.mean(self._maps(images, train)[-1], axis=axes)
            x = normalize(self.final_norm, x, train)
        else:
            x = jnp.mean(self.head_features(images, train), axis=axes)
        return self.head(x) if self.num_classes else x
