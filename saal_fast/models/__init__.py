"""Models under measurement: their state is preserved, their features and the memory of their activations are measured."""
