"""The verbs of core, which `platform --help` knows without importing pluggy or any plugin."""

OWN_VERBS = {
    "run": ("run", "train a model, evaluate and sample it"),
    "eval": ("eval", "measure a trained network: its bound, its samples, tasks"),
    "sample": ("sample", "draw texts from a trained network"),
    "chat": ("chat", "type the beginning of a text, or one with blanks, and see it written"),
    "show": ("show", "show on one screen what a run is, how it learned and what it writes"),
    "tokenizer": ("tokenizer", "train a byte-level BPE tokenizer"),
    "check": ("check", "test parts against the laws of their roles"),
    "new-plugin": ("new_plugin", "write a package with a part of your own"),
    "plugins": ("plugins", "list installed parts, and which parts go together"),
}
"""Verb -> (the verb's module in `platform_core.cli`, its line in `platform --help`)."""
