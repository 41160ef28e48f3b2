"""Corpora read by the library datasets: from the hub, JSON Lines, Parquet and saved folders."""
