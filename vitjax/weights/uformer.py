"""Uformer: the authors' names, "dowsample" among them."""

_BLOCK = (
    ("norm1", "norm1", "norm"),
    ("modulator.weight", "mixer/modulator", "param"),
    ("attn.relative_position_bias_table", "mixer/relative_position_bias", "param"),
    ("attn.qkv.to_q", "mixer/q", "linear"),
    ("attn.qkv.to_kv", "mixer/kv", "linear"),
    ("attn.proj", "mixer/proj", "linear"),
    ("norm2", "norm2", "norm"),
    ("mlp.linear1.0", "mlp/fc1", "linear"),
    ("mlp.dwconv.0", "mlp/dwconv", "conv"),
    ("mlp.linear2.0", "mlp/fc2", "linear"),
)
TABLE = (
    ("input_proj.proj.0", "stem/conv", "conv"),
    ("output_proj.proj.0", "head/conv", "conv"),
    ("dowsample_{i}.conv.0", "downsample_{i+1}/conv", "conv"),
    # Of a transposed convolution [in, out, 2, 2], ours is [2, 2, out, in].
    ("upsample_{i}.deconv.0", "upsample_{i+5}", "conv"),
    *(
        (f"{theirs}.blocks.{{j}}.{leaf}", f"{ours}/block_{{j}}/{our_leaf}", kind)
        for theirs, ours in (
            ("decoderlayer_{i}", "stage_{i+5}"),  # first: stage 5 would be encoder's too
            ("conv", "stage_4"),
            ("encoderlayer_{i}", "stage_{i}"),
        )
        for leaf, our_leaf, kind in _BLOCK
    ),
)
IGNORE = (r".*\.relative_position_index",)
"""A buffer."""
