"""Tokenizers: text as token ids and back.

    characters    one token each, of the corpus or of text8         character.py
    byte-level    pairs of bytes, trained here, or GPT-2's          library.py, training.py
    subwords      any other tokenizer of the transformers library   library.py

`sources` finds the tokenizer that `--data.tokenizer` names; a run keeps its own as JSON. Used by
`data`, `generate` and the run directory; imports no torch.
"""

from platform_core.data.tokenizer.base import LEFT_OVER, Ids, Tokenizer
from platform_core.data.tokenizer.character import CharacterTokenizer
from platform_core.data.tokenizer.library import ByteLevelTokenizer, SubwordTokenizer
from platform_core.data.tokenizer.saved import load_tokenizer, tokenizer_from_dict

__all__ = [
    "LEFT_OVER",
    "ByteLevelTokenizer",
    "CharacterTokenizer",
    "Ids",
    "SubwordTokenizer",
    "Tokenizer",
    "load_tokenizer",
    "tokenizer_from_dict",
]
