"""Training: a run from its first update to its result. Imports all other rooms except `cli`.

Trainer.update x steps -> bounds and samples on the way -> checkpoints -> result.json
"""
