"""`saal-fast`: the demonstration, and the paper's classification experiments (Section 4.1)."""
