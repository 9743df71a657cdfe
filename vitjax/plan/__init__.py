"""What a run will need on devices that are not here: the real step, compiled and read."""
