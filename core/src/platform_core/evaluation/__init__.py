"""Evaluation: what is measured of a trained network, and the texts that it writes.

`evaluation` says what `platform eval` can measure; `bound` and `samples` do it; `trained` opens a
run. Never imports `training` or `cli`.
"""
