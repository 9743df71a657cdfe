"""Layers other than attention: patch embedding, MLPs, norms, positions, drop path, and `Spec`."""
