"""Build or load a language model of transformers, and separate its last layer.

    features = network(inputs_embeds=table(ids))       without its last layer
    logits   = decoder(features)                       that last layer, linear

Each network is tested (`require_whole`): nothing may follow its last layer, a causal network must
not see later tokens, and any other network must see them.
"""

import copy
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from huggingface_hub import snapshot_download
from torch import Tensor, nn
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

from platform_core.data.hub import quiet, reachable
from platform_core.data.tokenizer.sources import FILES
from platform_core.errors import UsageError
from platform_core.foreign import (
    PREFIXES,
    prefix_to_drop,
    read_weights,
    unwrapped,
    weight_files,
)
from platform_core.record.files import digest
from platform_core.types import Hidden, Logits
from platform_hf.configuration import Sizes, is_folder, is_model_type, local
from platform_hf.library import FAILURES, said
from platform_hf.tokens import mask_row, require_same, tokenizer_beside

Attention = Literal["auto", "sdpa", "eager", "flash"]

KERNELS = {"auto": None, "sdpa": "sdpa", "eager": "eager", "flash": "flash_attention_2"}

SAFE = ("model.safetensors", "model.safetensors.index.json")
"""Files that hold weights and nothing else."""

SHARDS = "*.distcp"
"""Distributed checkpoints, which transformers prefers to safetensors; their index is a pickle."""

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", SHARDS)
"""Files of weights that can run code when they are read."""

MIN_SHARE = 0.75
"""Weights are refused if less than this share of the network's tensors, or numbers, fit."""

WRAPPERS = ("model.", "backbone.", "network.", "net.", "student.", "encoder.")
"""Names of an attribute that holds a network in training code; left out where more names then fit.
"""

TRIED_LENGTH = 4
"""Number of tokens on which a new network is tested."""

TOLERANCE = 1e-5
"""Differences below this share of the largest feature are rounding."""


class Reading(NamedTuple):
    """Requirements on a network: number of states, direction of reading and attention kernel."""

    num_states: int
    causal: bool
    attention: Attention


class Start(NamedTuple):
    """Where a network's weights are, and what is required of them."""

    source: str
    config: PretrainedConfig
    reading: Reading
    other_tokenizer: bool


def build(config: PretrainedConfig, reading: Reading, *, resized: bool = False) -> PreTrainedModel:
    """The network of a configuration, with new weights.

    Args:
        config: the configuration.
        reading: what is required of the network.
        resized: whether its tables are made in the size of the configuration and then resized to
            the number of states, as those of pretrained weights are.

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
            if resized:
                network.resize_token_embeddings(reading.num_states, mean_resizing=False)
    except FAILURES as error:
        raise UsageError(f"model type {config.model_type}: {said(error)}") from error
    if not resized:
        _draw_padding(network, config)
    _learn_padding(network)
    return network


def load(
    start: Start, vocabulary: Mapping[str, int] | None, mask_id: int | None
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The network with pretrained weights, resized to the number of states, and a record of them.

    Each state keeps the embedding row with its number, and the mask takes the row of the mask that
    the weights' own tokenizer has, if any. Missing rows are drawn at random, and rows beyond the
    number of states are left out. A note on standard error lists new and unused weights.

    Args:
        start: where the weights are.
        vocabulary: token -> id of the run's tokenizer, if it is one of the tokenizers library.
        mask_id: the state that is the mask, if there is one.

    Raises:
        UsageError: there are no weights, none that are safe to read, those of another network
            (fewer than `MIN_SHARE` fit) or of another tokenizer.
    """
    files = tokenizer_beside(folder := _folder_of(start.source))
    if files is not None and not start.other_tokenizer:
        require_same(start.source, files, vocabulary)
    tensors = read_weights(folder)
    config = copy.deepcopy(start.config)
    network, info, prefix = _filled(start, config, tensors)
    share = _require_fit(network, start.source, set(info["missing_keys"]), tensors)
    rows = config.vocab_size
    found = mask_row(files) if mask_id is not None else None
    own_mask = None if found is None or found >= rows else found
    kept = _rows(network, own_mask)
    with quiet():
        network.resize_token_embeddings(start.reading.num_states, mean_resizing=False)
    _learn_padding(network)
    _put_rows(network, mask_id, kept)
    lines = _new(info, rows, start.reading.num_states, mask_id if kept else None)
    if prefix:
        lines.append(f"names are read without {prefix}")
    if own_mask is not None:
        lines.append(f"the mask starts as their token {own_mask}")
    _say(f"{type(network).__name__} of {start.source}", lines)
    record = {
        "pretrained": start.source,
        "digests": {file.name: digest(file) for file in weight_files(folder)},
        "share": share,
        "prefix": prefix,
        "mask_row": own_mask,
        "tokenizer": None if files is None else "other" if start.other_tokenizer else "own",
        **_loaded(info, len(tensors)),
        "rows": [min(rows, start.reading.num_states), start.reading.num_states],
    }
    return network.train(), record


def _loaded(info: Mapping[str, Any], number: int) -> dict[str, Any]:
    """How many tensors of a file were loaded, and the names of those that were not, or are new."""
    return {
        "loaded": number - len(info["unexpected_keys"]),
        "new": sorted(info["missing_keys"]),
        "not_used": sorted(info["unexpected_keys"]),
    }


def _folder_of(source: str) -> Path:
    """The folder of a source's weights; a repository of the hub is downloaded if it can be.

    Raises:
        UsageError: there is no such folder or repository, or it has no weights to read.
    """
    if is_folder(source):
        folder = Path(local(source))
        _require_safetensors(folder)
        return folder
    try:
        with quiet():
            found = snapshot_download(
                source,
                allow_patterns=["*.safetensors", "*.safetensors.index.json", *FILES],
                local_files_only=not reachable(),
            )
    except (*FAILURES, OSError) as error:
        raise UsageError(
            f"{source} is no folder with weights, and the hub does not give it: {said(error)}; "
            "give --backbone.config a folder with model.safetensors"
        ) from error
    return Path(found)


def _filled(
    start: Start, config: PretrainedConfig, tensors: dict[str, Tensor]
) -> tuple[PreTrainedModel, dict[str, Any], str]:
    """A network with these tensors, what transformers says of them, and the prefix left out."""
    kind = _language_model(config, causal=start.reading.causal)
    prefix = ""
    with torch.device("meta"), quiet():
        described = kind.from_config(copy.deepcopy(config), dtype=torch.float32)
    own = set(described.state_dict())
    named = {unwrapped(name): tensor for name, tensor in tensors.items()}
    if named.keys() != tensors.keys():
        prefix = " or ".join(PREFIXES)
    if dropped := prefix_to_drop(named, own, WRAPPERS):
        named = {name.removeprefix(dropped): tensor for name, tensor in named.items()}
        prefix = f"{prefix} and {dropped}" if prefix else dropped
    if len(named) < len(tensors):
        raise UsageError(f"weights of {start.source} have two tensors for one name; name others")
    try:
        with quiet():
            network, info = type(described).from_pretrained(
                None,
                config=config,
                state_dict=named,
                dtype=torch.float32,
                attn_implementation=KERNELS[start.reading.attention],
                output_loading_info=True,
            )
    except (*FAILURES, OSError) as error:
        raise UsageError(f"weights of {start.source} cannot be loaded: {said(error)}") from error
    return network, info, prefix


def _require_fit(
    network: PreTrainedModel, source: str, missing: set[str], tensors: dict[str, Tensor]
) -> float:
    """The share of the network's tensors and of its numbers that were loaded, whichever is less.

    Raises:
        UsageError: it is less than `MIN_SHARE`.
    """
    own = dict(network.named_parameters())
    loaded = own.keys() - missing
    numbers = sum(tensor.numel() for tensor in own.values())
    filled = sum(own[name].numel() for name in loaded)
    share: float = min(len(loaded) / len(own), filled / numbers)
    if share < MIN_SHARE:
        first = min(tensors, default="nothing")
        raise UsageError(
            f"weights of {source} are not those of {type(network).__name__}: {len(loaded)} of "
            f"{len(own)} tensors and {filled / numbers:.0%} of the numbers fit, but "
            f"{MIN_SHARE:.0%} must; they are named like {first}, and the network's "
            f"like {min(own)}; leave --backbone.pretrained out for new weights"
        )
    return share


@torch.no_grad()
def _rows(network: PreTrainedModel, number: int | None) -> list[Tensor]:
    """One row of the embedding and of the last layer, copied; none without a number."""
    return [] if number is None else [table[number].clone() for table in _tables(network)]


@torch.no_grad()
def _put_rows(network: PreTrainedModel, number: int | None, rows: list[Tensor]) -> None:
    for table, row in zip(_tables(network), rows, strict=False):
        table[number] = row


def _tables(network: PreTrainedModel) -> list[Tensor]:
    """The embedding, and the weights and bias of the last layer: what has a row for each state."""
    last = network.get_output_embeddings()
    parts = [network.get_input_embeddings(), last]
    tables = [part.weight for part in parts if isinstance(part, nn.Embedding | nn.Linear)]
    bias = getattr(last, "bias", None)
    return [*tables, bias] if isinstance(bias, Tensor) else tables


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


def require_weights(source: str, sizes: Sizes, *, look: bool) -> None:
    """Check that a source has weights that may be read, as far as local files tell.

    Args:
        source: folder or repository.
        sizes: those that the user gives.
        look: whether the files must be there; a run that has started needs them no more.

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
    if look and is_folder(source):
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


def _new(info: Any, rows: int, num_states: int, mask_id: int | None) -> list[str]:
    """Lines of the note on weights: those that are new, left out or not used."""
    lines = []
    last = num_states - 1 if mask_id != num_states - 1 else num_states - 2
    if last >= rows:
        lines.append(f"states {rows} to {last} are new")
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
    return positions - first_position(network)


def first_position(network: PreTrainedModel) -> int:
    """The number of a text's first position: RoBERTa begins after that of the padding token."""
    number = getattr(network.config, "max_position_embeddings", None)
    tables = [module for module in network.modules() if isinstance(module, nn.Embedding)]
    padding = [t.padding_idx for t in tables if t.num_embeddings == number and t.padding_idx]
    return padding[0] + 1 if padding else 0


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
