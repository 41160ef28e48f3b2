"""Evaluation of a trained network: measurements, and the texts that the network writes.

`evaluation` defines what `platform eval` can measure; `bound` and `samples` compute it; `trained`
opens a run. This package never imports `training` or `cli`.
"""
