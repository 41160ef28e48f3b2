"""A judge of transformers that is small enough to be made for each test module."""

from pathlib import Path

import torch
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from platform_core.data.tokenizer.library import byte_characters

END = "<|endoftext|>"


def transformers_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes, the two pairs that the words have most, and one token that ends documents."""
    vocabulary = {c: i for i, c in enumerate([*byte_characters(), "he", "Ġt", "the"])}
    library = Library(models.BPE(vocabulary, [("h", "e"), ("Ġ", "t"), ("t", "he")]))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=library, bos_token=END, eos_token=END)


def write_judge(path: Path) -> Path:
    """Writes the judge's folder; returns its path."""
    torch.manual_seed(0)
    sizes = {"n_positions": 32, "n_embd": 16, "n_layer": 1, "n_head": 2, "initializer_range": 0.5}
    GPT2LMHeadModel(GPT2Config(vocab_size=260, **sizes)).save_pretrained(path)
    transformers_tokenizer().save_pretrained(path)
    return path
