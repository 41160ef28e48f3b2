"""Import of published checkpoints as runs, and export of runs for transformers."""
