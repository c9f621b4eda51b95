"""The paper's experiments: Table 1 and the figures, cell by cell, resumable."""
