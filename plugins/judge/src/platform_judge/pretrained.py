"""Networks of the transformers library as judges: from a folder, the hub, or a .gguf file.

None of their code is run and no pickle is read. A test input checks that a network is a causal
language model, and loading checks that all of its weights are there.
"""

import hashlib
import importlib.util
import io
import struct
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from platform_core.data.hub import quiet, reachable
from platform_core.data.tokenizer.files import read_files
from platform_core.data.tokenizer.library import read_library
from platform_core.data.tokenizer.sources import vocabulary
from platform_core.errors import UsageError
from platform_core.foreign import read_network_config, require_tensors, weight_files
from platform_core.record.files import digest
from platform_core.types import Selected, Tokens
from platform_judge.judge import POSSIBLE, Identity, Judge, Reading, Scores, last_rows, read_by

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
"""Files of which a folder must have one, so that its weights can be read without running code."""

SHARDS = "*.distcp"
"""Distributed checkpoints, which transformers prefers to safetensors; their index is a pickle."""

FAILURES = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    RuntimeError,
    ImportError,
    NotImplementedError,
    struct.error,
    ArithmeticError,
    AssertionError,
    MemoryError,
    SafetensorError,
    StrictDataclassError,
)
"""Errors that the library raises for a source that it cannot read."""

TRIED_LENGTH = 4
"""Tokens of the test input for a network."""

TRIED_TEXT = "a text of several words,  and\n2 lines"

TOLERANCE = 1e-4
"""Differences of logits below this share of the largest logit count as rounding."""


def open_pretrained(source: str, device: torch.device) -> Judge:
    """The judge of a folder, a name of the hub, or a .gguf file.

    Raises:
        UsageError: there is no readable judge, or it is no causal language model.
    """
    path = Path(source).expanduser()
    if path.suffix == ".gguf":
        if importlib.util.find_spec("gguf") is None:
            raise UsageError(
                f'{path.name} needs the package gguf: pip install "dlm-platform-core[gguf]"'
            )
        return _open(_Source("gguf", path.stem, str(path.parent), {"gguf_file": path.name}), device)
    if path.is_dir():
        _weights(path)
        read_network_config(path / "config.json")
        return _open(_Source("transformers", path.resolve().name, str(path)), device)
    if path.exists():
        raise UsageError(f"{source} is no judge; {POSSIBLE}")
    return _open(_Source("hub", source.rpartition("/")[2], source), device)


def _weights(folder: Path) -> list[Path]:
    if not any((folder / name).is_file() for name in WEIGHTS) or any(folder.glob(SHARDS)):
        raise UsageError(f"{folder} has no model.safetensors of its own; {POSSIBLE}")
    files = weight_files(folder)
    for file in files:
        require_tensors(file)
    return files


@dataclass(frozen=True)
class _Source:
    """Place from which a network and its tokenizer are read.

    Args:
        kind: transformers (a folder), gguf (a file in a folder) or hub.
        name: name for the record and for messages.
        location: the folder, or the name on the hub.
        arguments: arguments of `from_pretrained`.
    """

    kind: str
    name: str
    location: str
    arguments: Mapping[str, str] = field(default_factory=dict)

    def read(self, auto: Any, **arguments: Any) -> Any:
        """The object that one of transformers' automatic classes loads from this source."""
        online = self.kind == "hub" and reachable()
        try:
            # `quiet` does not silence the progress bar of a .gguf file.
            with quiet(), redirect_stderr(io.StringIO()):
                return auto.from_pretrained(
                    self.location,
                    local_files_only=not online,
                    trust_remote_code=False,
                    **self.arguments,
                    **arguments,
                )
        except FAILURES as error:
            if self.kind == "hub" and not online:
                raise UsageError(
                    f"there is no judge {self.location} here, and the hub cannot be reached; "
                    f"{POSSIBLE}"
                ) from error
            raise UsageError(
                f"transformers cannot read judge {self.name} ({_said(error)}); {POSSIBLE}"
            ) from error

    def files(self) -> list[Path]:
        if self.kind == "gguf":
            return [Path(self.location) / self.arguments["gguf_file"]]
        if self.kind == "hub":
            return _weights(Path(snapshot_download(self.location, local_files_only=True)))
        return _weights(Path(self.location))


def _open(source: _Source, device: torch.device) -> "PretrainedJudge":
    """Open and check the judge of a source."""
    config = source.read(AutoConfig)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UsageError(
            f"{source.name} is a network of type {config.model_type}, no causal language model; "
            f"{POSSIBLE}"
        )
    network, info = source.read(
        AutoModelForCausalLM,
        config=config,
        dtype=torch.float32,
        output_loading_info=True,
        use_safetensors=True,
    )
    if lacking := sorted(info["missing_keys"]):
        raise UsageError(f"{source.name} lacks weights, {lacking[0]} for one; {POSSIBLE}")
    network.to(device).eval()
    try:
        _require_causal(network, source.name)
    except FAILURES as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(
            f"{source.name} is no network that can be run ({_said(error)}); {POSSIBLE}"
        ) from error
    tokenizer = _tokenizer(source)
    if not tokenizer.is_fast:
        raise UsageError(f"{source.name} has its tokenizer in Python only; choose another judge")
    # If a folder has no tokenizer file, the library makes a tokenizer without tokens.
    if not tokenizer(TRIED_TEXT)["input_ids"] or len(tokenizer) > config.vocab_size:
        raise UsageError(
            f"{source.name} has no tokenizer of its network's {config.vocab_size} tokens; "
            "choose another judge"
        )
    identity = Identity(
        kind=source.kind,
        name=source.name,
        network=type(network).__name__,
        digest=_digest(source.files()),
        tokenizer=f"{type(tokenizer).__name__} {len(tokenizer)}",
        context=_context(network),
        dtype="float32",
    )
    return PretrainedJudge(identity, network, tokenizer)


def _tokenizer(source: _Source) -> Any:
    """The tokenizer of transformers, but as tokenizer.json of the folder says.

    Versions 5.3 to 5.15 of transformers make another one of some byte-level tokenizers, which loses
    the spaces.

    Raises:
        UsageError: there is none, or one of its files is damaged.
    """
    file = Path(source.location) / "tokenizer.json"
    if source.kind != "transformers" or not file.is_file():
        return source.read(AutoTokenizer)
    files = read_files(file)
    vocabulary(files)
    found, own = source.read(AutoTokenizer), read_library(files.model)
    if found.is_fast:
        made = found.backend_tokenizer
        ids = [library.encode(TRIED_TEXT, add_special_tokens=False).ids for library in (made, own)]
        if ids[0] != ids[1]:
            return PreTrainedTokenizerFast(tokenizer_object=own, **files.special)
    return found


@final
class PretrainedJudge(Judge):
    """A causal language model of transformers, with its own tokenizer.

    Args:
        identity: facts that identify the judge.
        network: network with its weights.
        tokenizer: fast tokenizer of transformers.
    """

    def __init__(self, identity: Identity, network: PreTrainedModel, tokenizer: Any) -> None:
        end = tokenizer.eos_token or ""
        super().__init__(identity, (tokenizer.bos_token or end, end), tokenizer.eos_token_id)
        self.network, self.tokenizer = network, tokenizer
        self._special = set(tokenizer.all_special_ids)

    def read(self, texts: Sequence[str], length: int) -> list[Reading]:
        """Texts in the tokenizer's tokens, including any that it puts in front by default."""
        if not texts:
            return []
        with quiet():
            found = self.tokenizer(
                list(texts),
                truncation=True,
                max_length=length + 1,
                return_offsets_mapping=True,
                return_attention_mask=False,
            )
        return [
            self._reading(ids, offsets, length)
            for ids, offsets in zip(found["input_ids"], found["offset_mapping"], strict=True)
        ]

    def _reading(self, ids: list[int], offsets: list[tuple[int, int]], length: int) -> Reading:
        characters, reached = [], 0
        for token, (_, end) in zip(ids[:length], offsets, strict=False):
            # Tokens may share a character; blanks before a word count to the word.
            characters.append(0 if token in self._special else max(0, end - reached))
            reached = max(reached, end)
        return Reading(ids[:length], characters, len(ids) > length)

    @torch.no_grad()
    def score(self, ids: Tokens, mask: Selected) -> Scores:
        """Negative log-likelihood of each token under the softmax of the network's logits."""
        with read_by(self.network.get_output_embeddings()) as hidden:
            logits = self.network(ids, attention_mask=mask.long(), use_cache=False).logits
        nats = torch.zeros(ids.shape, device=ids.device)
        later = mask[:, 1:]
        nats[:, 1:][later] = functional.cross_entropy(
            logits[:, :-1][later], ids[:, 1:][later], reduction="none"
        )
        return Scores(nats, last_rows(torch.cat(hidden)[mask], mask))

    @property
    def logits_per_token(self) -> int:
        return int(self.network.config.vocab_size)

    @property
    def device(self) -> torch.device:
        device: torch.device = self.network.device
        return device


@torch.no_grad()
def _require_causal(network: PreTrainedModel, name: str) -> None:
    """Refuse a network whose tokens see later ones, or whose last layer skips tokens."""
    ids = torch.arange(TRIED_LENGTH, device=network.device)[None]
    changed = ids.clone()
    changed[:, -1] = 0
    layer = network.get_output_embeddings()
    if layer is None:
        raise UsageError(f"{name} ({type(network).__name__}) has no last layer; {POSSIBLE}")
    with quiet(), read_by(layer) as hidden:
        first, second = (network(x, use_cache=False).logits for x in (ids, changed))
    difference = (first - second)[:, :-1].abs().amax() / first.abs().amax()
    if difference > TOLERANCE:
        raise UsageError(f"{name} ({type(network).__name__}) sees tokens to the right; {POSSIBLE}")
    if [tuple(rows.shape[:2]) for rows in hidden] != [tuple(ids.shape)] * 2:
        raise UsageError(f"{name} ({type(network).__name__}) hides its features; {POSSIBLE}")


def _context(network: PreTrainedModel) -> int | None:
    fields = network.config.to_dict()
    longest = fields.get("max_position_embeddings", fields.get("n_positions"))
    return int(longest) if longest else None


def _digest(files: Sequence[Path]) -> str:
    digests = [digest(file) for file in files]
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _said(error: BaseException) -> str:
    return " ".join(str(error).split()).partition(". ")[0][:200].rstrip(".")
