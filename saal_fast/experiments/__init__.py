"""The paper's classification experiments (Section 4.1): Table 1, Figure 2, Figure 6."""
