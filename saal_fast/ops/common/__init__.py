"""What the operations share: rules, windows, registration, and under `triton/` blocks and launches."""
