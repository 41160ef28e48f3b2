"""The record: everything that a run or a sweep keeps on disk, and nothing else. No torch."""
