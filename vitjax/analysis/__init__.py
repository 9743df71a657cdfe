"""Cost of a model, accuracy under a budget, and what a model looks at (docs/analysis.md)."""
