"""The ViT of SETR-MLA: ViT's names, and those of the official code for the aggregation."""

from vitjax.weights import vit
from vitjax.weights.vit import LIBRARIES, adapt

__all__ = ["GOOGLE", "LIBRARIES", "TABLE", "adapt"]

_NECK = (
    ("norm_{i}", "neck/norm_{i}", "norm"),
    ("mla.mla_p{i+2}_1x1.0", "neck/lateral_{i}/conv", "conv"),
    ("mla.mla_p{i+2}_1x1.1", "neck/lateral_{i}/norm", "batch_norm"),
    ("mla.mla_p{i+2}.0", "neck/output_{i}/conv", "conv"),
    ("mla.mla_p{i+2}.1", "neck/output_{i}/norm", "batch_norm"),
)
TABLE = (*vit.TABLE, *_NECK)
GOOGLE = (*vit.GOOGLE, *_NECK)
