"""Tasks of lm-evaluation-harness, asked of any trained network."""
