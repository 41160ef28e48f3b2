"""The record: everything that a run or a sweep keeps on disk. This room imports no torch."""
