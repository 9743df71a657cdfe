"""Rules by which parameters and activations of the models are sharded, for `vitjax.train`.

A rule is (regular expression of a parameter's path, words), see `vitjax.train.partition`.
"""

SHARDING_RULES: tuple[tuple[str, str], ...] = (
    # Attention: columns, by heads, in q, k, v; rows, in the heads' order, in the projection.
    (r"(.*/)?(q|k|v|kv|qkv|w_qkv|agent_q|query|key|value)/(kernel|bias)", "heads -"),
    (r"(.*/)?(mixer|attention_pool)/(proj|w_o)/kernel", "tensor -"),
    (r"(.*/)?mixer/attn/(kernel|bias)", "heads - -"),  # outlook weights
    # MLP: columns, then rows; a depthwise convolution between them stays with its channels.
    (r"(.*/)?mlp/(fc1|dwconv)/(kernel|bias)", "tensor"),
    (r"(.*/)?mlp/fc2/kernel", "tensor -"),
)
"""They fit every model of the menu; all else is split by FSDP alone."""

RESIDUAL = r"block_\d+|blocks|post_\d+|stem|patch_embed|downsample_\d+|upsample_\d+|head"
"""Modules whose result is held to the batch's sharding; see `sharding.constrain_activations`."""
