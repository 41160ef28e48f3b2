"""Accuracy of any trained network on tasks of lm-evaluation-harness."""
