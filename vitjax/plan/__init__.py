"""Requirements of a run on devices that are not present: the real step, compiled and read."""
