"""Measurement of models: time, memory and MFU of a step, alone or beside timm.

Each contestant is a separate process (`worker`), which is asked for steps by lines on its input
(`contest`). So memory is its own, a lack of it ends nothing else, and contestants take turns.
"""
