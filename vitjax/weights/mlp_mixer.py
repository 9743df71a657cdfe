"""MLP-Mixer: names of the PyTorch conversions (timm), and of Google's own files (`GOOGLE`)."""

from vitjax.models.preprocessing import GOOGLE as GOOGLE_IMAGES
from vitjax.weights import vit

_OWN = ("patch_embed.", "blocks.{i}.mlp.")
TABLE = (
    ("stem.proj", "patch_embed/proj", "conv"),
    *(
        (f"blocks.{{i}}.mlp_{theirs}.fc{k}", f"block_{{i}}/{ours}/fc{k}", "linear")
        for theirs, ours in (("tokens", "mixer/tokens"), ("channels", "mlp"))
        for k in (1, 2)
    ),
    *(row for row in vit.TABLE if not row[0].startswith(_OWN)),
)

_BLOCK = "MixerBlock_{i}/"
GOOGLE = (
    ("stem", "patch_embed/proj", "flax"),
    *(
        row
        for k in (0, 1)
        for row in (
            (f"{_BLOCK}LayerNorm_{k}", f"block_{{i}}/norm{k + 1}", "flax_norm"),
            (f"{_BLOCK}token_mixing/Dense_{k}", f"block_{{i}}/mixer/tokens/fc{k + 1}", "flax"),
            (f"{_BLOCK}channel_mixing/Dense_{k}", f"block_{{i}}/mlp/fc{k + 1}", "flax"),
        )
    ),
    ("pre_head_layer_norm", "norm", "flax_norm"),
    ("head", "head", "flax"),
)
GOOGLE_PREPROCESSING = {"*": GOOGLE_IMAGES}
