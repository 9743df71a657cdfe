"""Mobile-Former: names of the first author's code (AAboys/MobileFormer); those of the earlier third
party (slwang9353/MobileFormer, `layout="slwang9353"`) are translated.
"""

from vitjax.weights.libraries import Names, count

_BLOCK, _OURS = "features.{i+1}.", "block_{i}/"
_FORMER = (  # module there, here, kind
    ("q", "mixer/q", "linear"),
    ("channel_mlp", "mixer/proj", "linear"),
    ("layer_norm", "norm1", "norm"),
    ("ffn.0", "mlp/fc1", "linear"),
    ("ffn.2", "mlp/fc2", "linear"),
    ("ffn_norm", "norm2", "norm"),
)
_THIRD_PARTY = (  # which the first author's code does not have
    *((f"{name}_heads", f"{name}_heads", "linear") for name in "qkv"),
    ("qkv", "qkv", "linear"),
    ("proj", "proj", "linear"),
    ("mlp.fc{j}", "mlp/fc{j}", "linear"),
    ("norm{j}", "norm{j}", "norm"),
)
_BRIDGE = (("q", "q"), ("proj", "proj"), ("alpha.0", "gate"))
TABLE = (
    ("tokens.weight", "tokens", "param"),
    ("stem.0", "stem/conv", "conv"),
    ("stem.1", "stem/norm", "batch_norm"),
    ("features.0.conv.0", "lite_0/conv", "conv"),
    ("features.0.conv.1", "lite_0/norm", "batch_norm"),
    ("features.0.conv.4", "lite_1/conv", "conv"),
    ("features.0.conv.5", "lite_1/norm", "batch_norm"),
    (_BLOCK + "conv{k+1}.0", _OURS + "conv_{k}/conv", "conv"),
    (_BLOCK + "conv{k+1}.1", _OURS + "conv_{k}/norm", "batch_norm"),
    (_BLOCK + "conv_down.0", _OURS + "conv_down/conv", "conv"),
    (_BLOCK + "conv_down.1", _OURS + "conv_down/norm", "batch_norm"),
    (_BLOCK + "hyper{k+1}.hyper.0", _OURS + "act_{k}/fc1", "linear"),
    (_BLOCK + "hyper{k+1}.hyper.2", _OURS + "act_{k}/fc2", "linear"),
    (_BLOCK + "hyper{k+1}.norm", _OURS + "act_{k}/norm", "batch_norm"),
    *((f"{_BLOCK}local_global.{t}", f"{_OURS}to_tokens/{o}", "linear") for t, o in _BRIDGE),
    (_BLOCK + "local_global.layer_norm", _OURS + "to_tokens_norm", "norm"),
    *((f"local_global.{t}", f"attention_pool/{o}", "linear") for t, o in _BRIDGE),
    ("local_global.layer_norm", "norm", "norm"),
    # Norms and MLPs have the same paths here in both layouts; a mixer tells them apart.
    *(
        (f"{_BLOCK}global_block.{t}", f"{_OURS}former/{o}", kind, _OURS + "former/mixer")
        for t, o, kind in _FORMER
    ),
    *((f"{_BLOCK}global_block.{t}", f"{_OURS}former/{o}", kind) for t, o, kind in _THIRD_PARTY),
    (_BLOCK + "global_local.k", _OURS + "to_map/k", "linear"),
    (_BLOCK + "global_local.proj", _OURS + "to_map/v", "linear"),
    (_BLOCK + "global_local.kv", _OURS + "to_map/kv", "linear"),
    ("classifier.conv.1", "neck/conv", "conv"),
    ("classifier.conv.2", "neck/norm", "batch_norm"),
    ("classifier.fc.0", "representation", "linear"),
    ("classifier.fc.1", "fc_norm", "batch_norm"),
    ("classifier.classifier.1", "head", "linear"),
)

THIRD_PARTY = Names(
    "slwang9353/MobileFormer",
    r"^bneck\.bnecklite\.",
    (
        (r"^tokens$", "tokens.weight"),
        (r"^bneck\.bnecklite\.0\.", "features.0.conv.0."),
        (r"^bneck\.bnecklite\.2\.", "features.0.conv.4."),
        (r"^bneck\.bnecklite\.3\.", "features.0.conv.5."),
        (r"^blocks\.(\d+)\.", count("features.", ".")),
        (r"\.mobile\.strided_conv\.", ".conv_down."),
        (r"\.mobile\.conv(\d)\.", r".conv\1.0."),
        (r"\.mobile\.bn(\d)\.", r".conv\1.1."),
        (r"\.mobile\.ac(\d)\.Theta\.mlp\.0\.0\.", r".hyper\1.hyper.0."),
        (r"\.mobile\.ac(\d)\.Theta\.mlp\.1\.0\.", r".hyper\1.hyper.2."),
        (r"\.mobile\.ac(\d)\.Theta\.mlp\.2\.", r".hyper\1.norm."),
        (r"\.mobile_former\.project_Q\.", ".local_global.q."),
        (r"\.mobile_former\.unproject\.", ".local_global.proj."),
        (r"\.former_mobile\.project_KV\.mlp\.0\.0\.", ".global_local.kv."),
        (r"\.former\.QVK\.mlp\.0\.0\.", ".global_block.qkv."),
        (r"\.former\.Q_to_heads\.mlp\.0\.0\.", ".global_block.q_heads."),
        (r"\.former\.K_to_heads\.mlp\.0\.0\.", ".global_block.k_heads."),
        (r"\.former\.V_to_heads\.mlp\.0\.0\.", ".global_block.v_heads."),
        (r"\.former\.heads_to_o\.mlp\.0\.0\.", ".global_block.proj."),
        (r"\.former\.mlp\.mlp\.0\.0\.", ".global_block.mlp.fc1."),
        (r"\.former\.mlp\.mlp\.1\.0\.", ".global_block.mlp.fc2."),
        (r"\.former\.norm\.", ".global_block.norm1."),
        (r"\.former\.mlp_norm\.", ".global_block.norm2."),
        (r"^project\.", "classifier.conv.1."),
        (r"^fc\.mlp\.0\.0\.", "classifier.fc.0."),
        (r"^fc\.mlp\.1\.", "classifier.fc.1."),
        (r"^scores\.", "classifier.classifier.1."),
    ),
)
LIBRARIES = (THIRD_PARTY,)
