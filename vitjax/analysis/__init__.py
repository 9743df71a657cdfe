"""Cost of a model (parameters, multiply-adds, FLOPs), and accuracy under a budget."""
