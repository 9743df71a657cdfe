"""vitjax: the attention mechanisms of the vision-transformer literature, in JAX, trained through
one loop.
"""

from vitjax.models import create_model, list_models

__version__ = "0.1.0"
__all__ = ["create_model", "list_models"]
