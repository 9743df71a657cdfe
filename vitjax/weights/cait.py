"""CaiT: the authors' names, which are timm's too."""

from vitjax.weights import vit

_BLOCK = (
    ("norm1", "norm1", "norm"),
    ("attn.proj", "mixer/proj", "linear"),
    ("gamma_1", "layer_scale1", "param"),
    ("norm2", "norm2", "norm"),
    ("mlp.fc1", "mlp/fc1", "linear"),
    ("mlp.fc2", "mlp/fc2", "linear"),
    ("gamma_2", "layer_scale2", "param"),
)
TABLE = (
    ("cls_token", "cls_token", "param"),
    ("pos_embed", "pos_embed", "param"),
    ("patch_embed.proj", "patch_embed/proj", "conv"),
    *(
        (f"{theirs}.{{i}}.{name}", f"{ours}_{{i}}/{path}", kind)
        for theirs, ours in (("blocks", "block"), ("blocks_token_only", "post"))
        for name, path, kind in _BLOCK
    ),
    ("blocks.{i}.attn.qkv", "block_{i}/mixer/qkv", "linear"),
    *((f"blocks.{{i}}.attn.proj_{n}", f"block_{{i}}/mixer/proj_{n}", "linear") for n in "lw"),
    *((f"blocks_token_only.{{i}}.attn.{n}", f"post_{{i}}/mixer/{n}", "linear") for n in "qkv"),
    ("norm", "norm", "norm"),
    ("head", "head", "linear"),
)
adapt = vit.adapt
published_size = vit.published_size
