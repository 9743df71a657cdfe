"""Image files: their headers and pixels."""
