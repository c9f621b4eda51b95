"""What is asked of a model beside its scores: its state kept as it was, its features, the memory of its activations."""
