"""Faster forms of operations that XLA compiles poorly; each names its plain reference."""
