"""Corpora that the library datasets reads: of the hub, JSON Lines, Parquet, saved folders."""
