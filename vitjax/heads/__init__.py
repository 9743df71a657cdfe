"""Heads of dense tasks: from the maps of a backbone to logits for each pixel of a map."""
