"""What is not attention: patch embedding, MLPs, norms, positions, stochastic depth, and `Spec`."""
