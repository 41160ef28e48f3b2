"""Import of a checkpoint from elsewhere as a run directory, for eval, sample and --init.

    path -> Published (published) or Exported (export) -> Composition -> config.yaml, checkpoints/

The network's tensors are kept unchanged, except for a mask inside the vocabulary: the rows of the
mask move behind all others, where the platform's processes have their masks.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import torch
from torch import Tensor, nn

from platform_core.component import ROLES
from platform_core.composition.compose import Composition, compose
from platform_core.data.tokenizer import Tokenizer
from platform_core.data.tokenizer.library import LibraryTokenizer
from platform_core.data.tokenizer.opaque import OpaqueTokenizer
from platform_core.data.tokenizer.sources import open_tokenizer
from platform_core.errors import UsageError
from platform_core.foreign import read_weights, weight_files
from platform_core.model import Tensors, weights
from platform_core.record.directory import RunDirectory
from platform_core.record.files import digest, whole_folder, write_json, write_text
from platform_core.registry.parts import Plugins
from platform_core.runtime import accelerator as runtime
from platform_core.runtime.checkpoint import Checkpoint, Checkpoints, load_weights
from platform_published.export import TOKENIZER, is_exported
from platform_published.layouts import EMBEDDING, OF_STATES, PREFIX, read_published
from platform_published.layouts import read_config as read_hub_config

PROG = "platform import"


@dataclass(frozen=True)
class Source:
    """A checkpoint to import, and the user's options.

    Args:
        path: a Lightning checkpoint, a hub folder, or a folder of `platform export`.
        words: options of `platform run`, which replace the checkpoint's own.
        process: the process that the options name, if any.
        tokenizer: tokenizer of the checkpoint's texts, as for `--data.tokenizer`.
        mask_id: the state that is the mask, where the checkpoint does not say.
    """

    path: Path
    words: Sequence[str]
    process: str | None = None
    tokenizer: str | None = None
    mask_id: int | None = None


@dataclass(frozen=True)
class Imported:
    """A checkpoint converted to the platform's objects."""

    composition: Composition
    tokenizer: Tokenizer
    checkpoint: Checkpoint
    card: Mapping[str, Any]


def import_run(source: Source, directory: RunDirectory, plugins: Plugins) -> Imported:
    """Read the checkpoint, check it against its network, and make the run directory.

    Raises:
        UsageError: the checkpoint cannot be read or does not fit, an option is missing, or the
            directory cannot be written.
    """
    imported = (_exported if is_exported(source.path) else _published)(source, plugins)
    _check(imported)
    with whole_folder(directory.path, replace=True) as folder:
        made = RunDirectory(folder)
        made.samples.mkdir()
        Checkpoints(made.checkpoints, keep=1).save(
            imported.checkpoint.state["step"], imported.checkpoint
        )
        write_json(made.tokenizer, imported.tokenizer.to_dict())
        accelerator = runtime.start(imported.composition.train.precision)
        origins = imported.composition.provenance()
        write_json(made.environment, runtime.describe(accelerator, origins))
        write_json(folder / "import.json", imported.card)
        write_text(made.config, imported.composition.config)
    return imported


def _published(source: Source, plugins: Plugins) -> Imported:
    read = read_published(source.path, process=source.process, mask_id=source.mask_id)
    words = [*_left(read.words, source.words), *source.words]
    _require_said(words, source.path)
    composition, _ = compose(words, plugins, prog=PROG)
    states = len(read.model[EMBEDDING])
    with torch.device("meta"):
        process = composition.build(states).model.process
    text = states - (process.num_states - process.vocab_size)
    mask_id = read.mask_id if text < states and read.mask_id is not None else states - 1
    if not 0 <= mask_id < states:
        raise UsageError(f"the mask is state {mask_id} of only {states} states; give --mask_id N")
    network = composition.build(text).model.backbone
    groups = {
        "model": _fitted(network, read.model, mask_id),
        "ema": _fitted(network, read.ema, mask_id),
    }
    start_named = any(word.startswith("--process.start_id") for word in words)
    return Imported(
        composition,
        _tokenizer(source.tokenizer, text, source.path),
        Checkpoint(groups, {"step": read.step, "ema_updates": read.ema_updates, "seconds": 0.0}),
        {
            **_origin(source.path),
            "layout": read.layout,
            "options": words,
            "states": states,
            "mask": {"was": mask_id, "is": states - 1} if text < states else None,
            "read": sorted(f"{PREFIX}{name}" for name in read.model),
            "ignored": sorted(read.ignored),
            "notes": [
                *read.notes,
                *_notes(states, mask_id, start_missing=process.causal and not start_named),
            ],
        },
    )


def _require_said(words: Sequence[str], path: Path) -> None:
    """Check that the options have the values that tensors do not show.

    Raises:
        UsageError: an option is missing; the message names it.
    """
    if not any(word.startswith("--data.length") for word in words):
        raise UsageError(f"{path} does not say how long its texts are; give --data.length N")
    if not any(word.startswith("--backbone.num_heads") for word in words):
        raise UsageError(
            f"{path} does not say how many attention heads there are; give --backbone.num_heads N"
        )


def _fitted(network: nn.Module, tensors: Tensors, mask_id: int) -> Tensors:
    """Published tensors under the network's names, with the mask as the last state."""
    own, names = weights(network), network.state_dict()
    buffers = {name: own[name] for name in own if name.endswith("inv_freq")}
    # Names of tied weights are in the state dict, but not among the weights.
    kept = {n: t for n, t in tensors.items() if n in own or n not in names}
    return buffers | _mask_last(kept, mask_id)


def _notes(states: int, mask_id: int, *, start_missing: bool) -> Iterator[str]:
    """Notes on a moved mask, and on a start token that the checkpoint does not name."""
    last = states - 1
    if mask_id != last:
        yield (
            f"the mask was token {mask_id} and is token {last}; tokens {mask_id + 1} to {last} "
            "move down by one"
        )
    if start_missing:
        yield (
            "the checkpoint does not say which token begins a text; texts begin with state "
            f"{last}, which the network never read: give --process.start_id N"
        )


def _exported(source: Source, plugins: Plugins) -> Imported:
    """Read a folder of `platform export`, whose config.json holds the run's own config."""
    config = read_hub_config(source.path)
    text, step = config.get("composition"), config.get("step")
    if not isinstance(text, str) or type(step) is not int or not 0 <= step < 2**53:
        lacking = "composition" if not isinstance(text, str) else "step"
        raise UsageError(
            f"{source.path}/config.json lacks {lacking!r}, which platform export writes; export "
            "the run again"
        )
    tensors = read_weights(source.path)
    with NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        composition, _ = compose(["--config", file.name, *source.words], plugins, prog=PROG)
    tokenizer = open_tokenizer(source.tokenizer or str(source.path / TOKENIZER))
    with torch.device("meta"):
        network = composition.build(tokenizer.vocab_size).model.backbone
    named = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}
    tied = set(network.state_dict()) - set(weights(network))
    kept = {name: tensor for name, tensor in named.items() if name not in tied}
    return Imported(
        composition,
        tokenizer,
        Checkpoint({"model": kept, "ema": kept}, {"step": step, "ema_updates": 0, "seconds": 0.0}),
        {
            **_origin(source.path),
            "layout": "folder of platform export",
            "options": list(source.words),
            "read": sorted(tensors),
            "ignored": [],
            "notes": [f"{config.get('weights')} weights: ema and raw are the same"],
        },
    )


def _check(imported: Imported) -> None:
    """Check that the tensors are those of the composition's network.

    Raises:
        UsageError: names or shapes differ.
    """
    with torch.device("meta"):
        network = imported.composition.build(imported.tokenizer.vocab_size).model.backbone
    for tensors in imported.checkpoint.tensors.values():
        load_weights(network, tensors, source=str(imported.card["source"]))


def _left(words: Sequence[str], given: Sequence[str]) -> list[str]:
    """The checkpoint's options, without those of parts that the user names.

    The process is kept, because the checkpoint was read as a checkpoint of the named process.
    """
    named = {_key(word) for word in given} & set(ROLES) - {"process"}
    return [word for word in words if _key(word).partition(".")[0] not in named]


def _key(word: str) -> str:
    return word.removeprefix("--").partition("=")[0]


def _mask_last(tensors: Mapping[str, Tensor], mask_id: int) -> dict[str, Tensor]:
    """The tensors with the rows of the mask behind those of all other states."""

    def moved(rows: Tensor) -> Tensor:
        return torch.cat((rows[:mask_id], rows[mask_id + 1 :], rows[mask_id : mask_id + 1]))

    return {name: moved(t) if name in OF_STATES else t for name, t in tensors.items()}


def _tokenizer(name: str | None, vocab_size: int, source: Path) -> Tokenizer:
    if name is None:
        return OpaqueTokenizer(vocab_size)
    tokenizer = open_tokenizer(name)
    if isinstance(tokenizer, LibraryTokenizer) and tokenizer.vocab_size < vocab_size:
        # Published uniform models have a row for a mask that they never see, or further rows up to
        # a round number.
        return tokenizer.with_size(vocab_size)
    if tokenizer.vocab_size != vocab_size:
        raise UsageError(
            f"the tokenizer {name} has {tokenizer.vocab_size} tokens, but {source} is of a network "
            f"for {vocab_size}"
        )
    return tokenizer


def _origin(path: Path) -> dict[str, Any]:
    files = [path] if path.is_file() else [path / "config.json", *weight_files(path)]
    return {"source": str(path), "sha256": {file.name: digest(file) for file in files}}
