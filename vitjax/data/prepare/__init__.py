"""Data sets written as ArrayRecord, once."""
