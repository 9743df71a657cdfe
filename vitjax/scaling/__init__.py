"""Scaling laws: forms, fits, intervals, IsoFLOP parabolas and plots; arrays in, arrays out."""
