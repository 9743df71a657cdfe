"""What is done with trained models: ask them, measure their features, annotate with them."""
