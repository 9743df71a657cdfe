"""Object detection as functions of arrays: boxes, anchors, matching, suppression, regions, losses.

Every function has static shapes and works under `jit` and `vmap`. Most are of one image. Boxes are
`(x0, y0, x1, y1)` in pixels, x to the right and y down, in continuous coordinates: a box's width is
x1 - x0.
"""
