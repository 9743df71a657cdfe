"""Sweeps: grids of runs, shared by workers on one file system, and what their files say.

A sweep is a Python file whose `get_sweep()` yields the fields of runs, each as `get_config()` of a
run's config returns them; docs/scaling.md shows one.
"""
