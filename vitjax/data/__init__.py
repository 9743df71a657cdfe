"""Data loading from files to batches: numpy on the host, without jax."""

from vitjax.data.source import BadImage, DataInfo, Sample, Source
from vitjax.data.sources import open_source

__all__ = ["BadImage", "DataInfo", "Sample", "Source", "open_source"]
