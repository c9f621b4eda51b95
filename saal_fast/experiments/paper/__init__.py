"""The paper's experiments (Section 4.1): Table 1, Figure 2 and Figure 6."""
