"""The verbs of core, which `platform --help` knows without importing pluggy or any plugin."""

OWN_VERBS = {
    "run": ("run", "train a model, evaluate and sample it"),
    "eval": ("eval", "the bound of a trained network; its samples judged; tasks"),
    "sample": ("sample", "draw texts from a trained network"),
    "tokenizer": ("tokenizer", "train a vocabulary of pieces of words"),
    "check": ("check", "test parts against the laws of their roles"),
    "new-plugin": ("new_plugin", "write a package with a part of your own"),
    "plugins": ("plugins", "list the parts that are installed, and what goes with what"),
}
"""Verb -> its module in `platform_core.cli`, and its line in `platform --help`."""
