"""Build or load a language model of transformers, and separate its last layer.

    features = network(inputs_embeds=table(ids))       without its last layer
    logits   = decoder(features)                       that last layer, linear

Each network is tested (`require_whole`): nothing may follow its last layer, a causal network must
not see later tokens, and any other network must see them.
"""

import sys
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
)

from platform_core.data.hub import quiet
from platform_core.errors import UsageError
from platform_core.types import Hidden, Logits
from platform_hf.configuration import Sizes, is_folder, is_model_type, local
from platform_hf.library import FAILURES, said

Attention = Literal["auto", "sdpa", "eager", "flash"]

KERNELS = {"auto": None, "sdpa": "sdpa", "eager": "eager", "flash": "flash_attention_2"}

SAFE = ("model.safetensors", "model.safetensors.index.json")
"""Files that hold weights and nothing else."""

SHARDS = "*.distcp"
"""Distributed checkpoints, which transformers prefers to safetensors; their index is a pickle."""

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", SHARDS)
"""Files of weights that can run code when they are read."""

TRIED_LENGTH = 4
"""Number of tokens on which a new network is tested."""

TOLERANCE = 1e-5
"""Differences below this share of the largest feature are rounding."""


class Reading(NamedTuple):
    """Requirements on a network: number of states, direction of reading and attention kernel."""

    num_states: int
    causal: bool
    attention: Attention


def build(config: PretrainedConfig, reading: Reading) -> PreTrainedModel:
    """The network of a configuration, with new weights.

    Raises:
        UsageError: there is no such network, or it refuses its configuration.
    """
    kind = _language_model(config, causal=reading.causal)
    try:
        with quiet():
            network: PreTrainedModel = kind.from_config(
                config,
                trust_remote_code=False,
                dtype=torch.float32,
                attn_implementation=KERNELS[reading.attention],
            )
    except FAILURES as error:
        raise UsageError(f"model type {config.model_type}: {said(error)}") from error
    _draw_padding(network, config)
    _learn_padding(network)
    return network


def load(source: str, config: PretrainedConfig, reading: Reading) -> PreTrainedModel:
    """The network of a folder or repository with its weights, resized to the number of states.

    Each state keeps the embedding row with its number. Missing rows are drawn at random, and rows
    beyond the number of states are left out. A note on standard error lists new and unused weights.

    Raises:
        UsageError: there are no weights, none that are safe to read, or those of another network.
    """
    kind = _language_model(config, causal=reading.causal)
    try:
        with quiet():
            loaded = kind.from_pretrained(
                local(source),
                config=config,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=torch.float32,
                attn_implementation=KERNELS[reading.attention],
                output_loading_info=True,
            )
    except (*FAILURES, OSError) as error:
        raise UsageError(f"weights of {source} cannot be loaded: {said(error)}") from error
    network: PreTrainedModel = loaded[0]
    rows = config.vocab_size
    with quiet():
        network.resize_token_embeddings(reading.num_states, mean_resizing=False)
    _learn_padding(network)
    network.train()
    _say(f"{type(network).__name__} of {source}", _new(loaded[1], rows, reading.num_states))
    return network


def _language_model(config: PretrainedConfig, *, causal: bool) -> Any:
    """The auto class of transformers for a network; sets the direction of reading in `config`.

    A causal language model is made bidirectional by the field `is_causal`; `require_whole` tests
    whether the network follows this field.
    """
    is_causal_lm = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING
    is_masked_lm = type(config) in MODEL_FOR_MASKED_LM_MAPPING and not config.is_encoder_decoder
    if getattr(config, "final_logit_softcapping", None):
        raise UsageError(
            f"model type {config.model_type} caps its logits after the last layer; "
            "give --backbone.fields.final_logit_softcapping null"
        )
    config.use_cache = False
    if hasattr(config, "is_decoder"):
        config.is_decoder = causal
    if is_masked_lm and not causal:
        return AutoModelForMaskedLM
    if is_causal_lm:
        if not causal or hasattr(config, "is_causal"):
            config.is_causal = causal
        return AutoModelForCausalLM
    if is_masked_lm:
        raise UsageError(
            f"model type {config.model_type} reads in both directions only, but the process is "
            "causal; choose gpt2, llama or bert, or a process that is not causal, such as absorbing"
        )
    raise UsageError(
        f"model type {config.model_type} is no language model with a single stack of layers; "
        "choose bert, modernbert, roberta, gpt2 or llama"
    )


def require_weights(source: str, sizes: Sizes) -> None:
    """Check that a source has weights that may be read, as far as local files tell.

    Raises:
        UsageError: the source has no weights or only files that can run code, or sizes are given.
    """
    if is_model_type(source):
        raise UsageError(
            f"{source} is a model type and has no weights; give a folder or a repository with "
            "--backbone.config, or leave --backbone.pretrained out"
        )
    for name in sizes.given():
        if name != "dropout":
            raise UsageError(
                f"{name} is given, but pretrained weights have their sizes already; leave it out, "
                "or leave --backbone.pretrained out"
            )
    if is_folder(source):
        _require_safetensors(Path(local(source)))


def _require_safetensors(folder: Path) -> None:
    pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if any((folder / name).is_file() for name in SAFE) and not any(folder.glob(SHARDS)):
        return
    if pickles:
        raise UsageError(
            f"{folder} has its weights in {pickles[0]}, which can run code when it is read; if you "
            "trust it, convert it: load it with transformers and save_pretrained(folder), which "
            "writes model.safetensors"
        )
    raise UsageError(
        f"{folder} has no model.safetensors; leave --backbone.pretrained out for new weights"
    )


def _new(info: Any, rows: int, num_states: int) -> list[str]:
    """Lines of the note on weights: those that are new, left out or not used."""
    lines = []
    if num_states > rows:
        lines.append(f"states {rows} to {num_states - 1} are new")
    if num_states < rows:
        lines.append(f"its states {num_states} to {rows - 1} are left out")
    lines += _listed("new", info["missing_keys"])
    lines += _listed("not used", info["unexpected_keys"])
    return lines


def _listed(what: str, names: Any) -> list[str]:
    ordered = sorted(names)
    more = f" and {len(ordered) - 3} more" if len(ordered) > 3 else ""
    return [f"{what}: {', '.join(ordered[:3])}{more}"] if ordered else []


def _say(whose: str, lines: list[str]) -> None:
    if lines:
        print(f"note: backbone hf: {whose}: {'; '.join(lines)}", file=sys.stderr)


def _draw_padding(network: PreTrainedModel, config: PretrainedConfig) -> None:
    """Draw the embedding row of the padding token, which is an ordinary token here, not zero."""
    table = network.get_input_embeddings()
    padding = getattr(table, "padding_idx", None)
    if padding is not None and not table.weight.is_meta:
        with torch.no_grad():
            table.weight[padding].normal_(std=getattr(config, "initializer_range", 0.02))


def _learn_padding(network: PreTrainedModel) -> None:
    """Let the embedding row of the padding token learn, which it would not by default."""
    table = network.get_input_embeddings()
    if isinstance(table, nn.Embedding):
        table.padding_idx = None


def take_apart(network: PreTrainedModel, reading: Reading) -> nn.Linear:
    """Remove and return the last layer of a network, which then returns that layer's input.

    Raises:
        UsageError: the network has no linear last layer, or its direction of reading is wrong.
    """
    on_meta = network.device.type == "meta"
    logits = None if on_meta else on_trial(network, reading.num_states)[0]
    decoder = _detach_decoder(network)
    if logits is not None:
        require_whole(network, decoder, logits, reading)
    return decoder


def _detach_decoder(network: PreTrainedModel) -> nn.Linear:
    decoder = network.get_output_embeddings()
    place = Undecoded(decoder)
    if isinstance(decoder, nn.Linear):
        network.set_output_embeddings(place)
    if not isinstance(decoder, nn.Linear) or network.get_output_embeddings() is not place:
        raise UsageError(
            f"{type(network).__name__} has no linear last layer of its own; "
            "choose bert, modernbert, roberta, gpt2 or llama"
        )
    return decoder


class Undecoded(nn.Identity):
    """Stands in for the last layer of a network, and returns its input.

    BERT reads the bias of this layer from it, and Mamba the dtype of its weights.
    """

    bias: None = None

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self._decoder = (decoder,)  # in a tuple, so that it is not a submodule

    @property
    def weight(self) -> nn.Parameter:
        weight: nn.Parameter = self._decoder[0].weight  # type: ignore[assignment]
        return weight


def longest(network: PreTrainedModel) -> int | None:
    """Number of tokens that the network has positions for; None without a limit."""
    positions: int | None = getattr(network.config, "max_position_embeddings", None)
    if positions is None or positions < 1:
        return None
    tables = [module for module in network.modules() if isinstance(module, nn.Embedding)]
    # RoBERTa begins its positions after the one of the padding token.
    padding = [t.padding_idx for t in tables if t.num_embeddings == positions and t.padding_idx]
    return positions - (padding[0] + 1 if padding else 0)


@torch.no_grad()
def on_trial(network: PreTrainedModel, num_states: int) -> tuple[Hidden, Hidden]:
    """Outputs of a network for a few tokens, and for the same tokens with another last one."""
    table = network.get_input_embeddings()
    ids = torch.arange(TRIED_LENGTH, device=next(network.parameters()).device) % num_states
    changed = torch.cat((ids[:-1], (ids[-1:] + 1) % num_states))
    training = network.training
    network.eval()
    try:
        with quiet():
            first, second = (network(inputs_embeds=table(x[None])).logits for x in (ids, changed))
    except FAILURES as error:
        raise UsageError(
            f"{type(network).__name__} cannot be read from embeddings alone ({said(error)}); "
            "choose bert, modernbert, roberta, gpt2 or llama"
        ) from error
    network.train(training)
    return first, second


def require_whole(
    network: PreTrainedModel, decoder: nn.Linear, logits: Logits, reading: Reading
) -> None:
    """Check that the parts return what the whole network did, and that its direction is right.

    Args:
        network: the network without its last layer.
        decoder: the last layer.
        logits: output of the whole network in `on_trial`.
        reading: if causal, no token may see a later one; else the first must see the last.

    Raises:
        UsageError: the network fails one of these tests.
    """
    name = type(network).__name__
    features, changed = on_trial(network, reading.num_states)
    with torch.no_grad():
        decoded = decoder(features)
    if not torch.allclose(decoded, logits, rtol=1e-3, atol=1e-4):
        raise UsageError(
            f"{name} does not end in a linear layer; choose bert, modernbert, roberta, gpt2 or "
            "llama"
        )
    difference = (features - changed)[:, :-1].abs().amax() / features.abs().amax()
    if reading.causal and difference > TOLERANCE:
        raise UsageError(
            f"{name} sees tokens to the right, but the process is causal; choose gpt2, llama or "
            "bert, or a process that is not causal, such as absorbing"
        )
    if not reading.causal and (features - changed)[:, 0].equal(torch.zeros_like(features[:, 0])):
        raise UsageError(
            f"{name} sees no tokens to the right, but the process needs the whole text; choose "
            "bert, modernbert or roberta, or a causal process, such as ar"
        )
