"""Training: a run from its first update to its result. Imports every room but `cli`.

Trainer.update x steps -> looks on the way -> checkpoints -> result.json
"""
