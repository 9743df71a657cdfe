"""Transforms of samples on the host: crops, changes of colour and geometry."""
