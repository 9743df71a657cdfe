"""Images with labels, from where they lie to batches: numpy on the host, no jax."""

from vitjax.data.source import BadImage, Example, Source, open_source

__all__ = ["BadImage", "Example", "Source", "open_source"]
