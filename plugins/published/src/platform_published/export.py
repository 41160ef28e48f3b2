"""Export of a run as a folder that transformers loads, and that `platform import` reads back.

    config.json  model.safetensors  README.md  platform_tokenizer.json
    and, where the tokens are known, tokenizer.json and tokenizer_config.json of transformers

`platform_published.transformers` has the classes that load the folder.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from platform_core.composition.compose import Built, Composition
from platform_core.data.tokenizer import CharacterTokenizer, Tokenizer
from platform_core.data.tokenizer.character import SPECIAL_TOKENS
from platform_core.data.tokenizer.library import LibraryTokenizer
from platform_core.errors import UsageError
from platform_core.model import Model, weights
from platform_core.process import Absorbing
from platform_core.record.directory import RunDirectory
from platform_core.record.files import whole_folder, write_json, write_text
from platform_core.record.results import evaluations, read_result
from platform_published.layouts import PREFIX

MODEL_TYPE = "dlm-platform"
TOKENIZER = "platform_tokenizer.json"
MASKS = ("[MASK]", "<mask>", "<|mask|>", "[NOISE MASK]", "<|noise mask|>")
"""Names of the mask in exports; the first that is no token of the run's tokenizer is taken."""


@dataclass(frozen=True)
class Trained:
    """A run's network with all that an export needs.

    Args:
        composition: parts and options of the run.
        built: the parts, with the weights in place.
        tokenizer: tokenizer of the run.
        step: step of the checkpoint.
        average: which weights were loaded, ema or raw.
    """

    composition: Composition
    built: Built
    tokenizer: Tokenizer
    step: int
    average: str

    @property
    def causal(self) -> bool:
        """Whether transformers treats the network as a causal language model."""
        return self.built.model.process.causal


def is_exported(path: Path) -> bool:
    """Whether a path is a folder that `export_folder` wrote."""
    file = path / "config.json"
    try:
        return bool(json.loads(file.read_text(encoding="utf-8"))["model_type"] == MODEL_TYPE)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def require_exportable(run: RunDirectory, folder: Path) -> None:
    """Check that a run can be exported to a folder, before anything is read.

    Raises:
        UsageError: the folder exists and is not empty, or the network reads labels.
    """
    if labels := run.label_names():
        raise UsageError(
            f"{run.path} reads one of {len(labels)} labels with each text, which models of "
            "transformers cannot take; export a run without --data.label"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists; name a folder that does not")


def export_folder(trained: Trained, run: RunDirectory, folder: Path) -> None:
    """Write the folder, as a whole or not at all.

    Raises:
        UsageError: as `require_exportable`; or a part besides the network has weights; or the
            folder cannot be written.
    """
    require_exportable(run, folder)
    _require_no_other_state(trained.built.model)
    found = tensors(trained.built.model.backbone)
    states = trained.built.model.process.num_states
    with whole_folder(folder) as made:
        try:
            save_file(found, made / "model.safetensors", {"format": "pt"})
        except SafetensorError as error:
            raise OSError(str(error)) from error
        write_json(made / TOKENIZER, trained.tokenizer.to_dict())
        for name, content in transformers_tokenizer(trained.tokenizer, states).items():
            write_json(made / name, content)
        write_text(made / "README.md", model_card(trained, run))
        write_json(made / "config.json", config(trained))


def _require_no_other_state(model: Model) -> None:
    other = next((name for name in weights(model) if not name.startswith("backbone.")), None)
    if other is not None:
        raise UsageError(
            f"the {other.partition('.')[0]} of this run has state of its own ({other}), for which "
            "a folder for transformers has no place; use the run directory itself"
        )


def tensors(backbone: Any) -> dict[str, Tensor]:
    """The network's weights under the names of the published hub folders, tied ones twice."""
    own = weights(backbone)
    found = {
        name: own.get(name, tensor).detach().cpu().contiguous().clone()
        for name, tensor in backbone.state_dict().items()
    }
    return {f"{PREFIX}{name}": tensor for name, tensor in found.items()}


def config(trained: Trained) -> dict[str, Any]:
    """Content of config.json: the run's own config, and the fields that transformers needs."""
    process = trained.built.model.process
    weight = next(trained.built.model.backbone.parameters())
    return {
        "architectures": ["PlatformForCausalLM" if trained.causal else "PlatformForMaskedLM"],
        "model_type": MODEL_TYPE,
        "dtype": str(weight.dtype).removeprefix("torch."),
        "vocab_size": process.num_states,
        "text_vocab_size": process.vocab_size,
        **({"mask_token_id": process.mask_id} if isinstance(process, Absorbing) else {}),
        "time_conditioned": process.time_conditioned,
        "max_position_embeddings": trained.composition.data.length,
        "weights": trained.average,
        "step": trained.step,
        "composition": trained.composition.config,
    }


def transformers_tokenizer(tokenizer: Tokenizer, num_states: int) -> dict[str, dict[str, Any]]:
    """The tokenizer files for transformers, by name; none if only the vocabulary's size is known.

    The mask of a masking process is the id after the vocabulary. If ids of the vocabulary have no
    token, the files lack the mask.
    """
    mask = tokenizer.vocab_size if num_states > tokenizer.vocab_size else None
    if isinstance(tokenizer, CharacterTokenizer):
        names = ("pad_token", "bos_token", "eos_token", "unk_token")
        return _files(
            _of_characters(tokenizer), dict(zip(names, SPECIAL_TOKENS, strict=True)), mask
        )
    if isinstance(tokenizer, LibraryTokenizer):
        special = {
            "pad_token": tokenizer.pad,
            "bos_token": tokenizer.begin,
            "eos_token": tokenizer.end,
        }
        whole = len(tokenizer.library.get_vocab(with_added_tokens=True)) == tokenizer.vocab_size
        return _files(dict(tokenizer.model), special, mask if whole else None)
    return {}


def _files(
    model: dict[str, Any], special: Mapping[str, str], mask: int | None
) -> dict[str, dict[str, Any]]:
    if mask is not None:
        known = {*model["model"]["vocab"], *(token["content"] for token in model["added_tokens"])}
        name = next(name for name in (*MASKS, f"<|mask {mask}|>") if name not in known)
        model = {**model, "added_tokens": [*model["added_tokens"], _special(name, mask)]}
        special = {**special, "mask_token": name}
    return {
        "tokenizer.json": model,
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            **special,
        },
    }


def _of_characters(tokenizer: CharacterTokenizer) -> dict[str, Any]:
    """A character vocabulary as a model of the tokenizers library."""
    vocab = {token: i for i, token in enumerate((*SPECIAL_TOKENS, *tokenizer.characters))}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_special(token, vocab[token]) for token in SPECIAL_TOKENS],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": "[\\s\\S]"},
            "behavior": "Isolated",
            "invert": False,
        },
        "post_processor": None,
        "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": SPECIAL_TOKENS[-1]},
    }


def _special(token: str, number: int) -> dict[str, Any]:
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": token, **plain, "special": True}


def model_card(trained: Trained, run: RunDirectory) -> str:
    """README.md: the parts of the model, how to load it, its figures and how they were measured."""
    head = "AutoModelForCausalLM" if trained.causal else "AutoModelForMaskedLM"
    conditioned = trained.built.model.process.time_conditioned
    call = "model(input_ids, timesteps=sigma).logits" if conditioned else "model(input_ids).logits"
    parts = "".join(f"| {role} | {name} |\n" for role, name in trained.composition.names.items())
    number = sum(p.numel() for p in trained.built.model.backbone.parameters())
    read = "`timesteps` is the noise level sigma = -log alpha of each text, 0 if left out.\n"
    return f"""---
library_name: transformers
tags: [dlm-platform, {trained.composition.names["process"]}]
---

# {run.path.name}

A language model of dlm-platform with {number:,} weights: {trained.average}, step {trained.step}.

| role | part |
|---|---|
{parts}
```python
import platform_core.transformers  # registers the model with transformers
from transformers import {head}

model = {head}.from_pretrained(DIR)
logits = {call}
```

Logits are the raw output of the network, before the parameterization.
{read if conditioned else ""}`platform import DIR --output RUN` makes a run of this folder.

## Metrics

{_metrics(run)}"""


def _metrics(run: RunDirectory) -> str:
    """Figures and cards of the run's final result and of its evaluations."""
    result = read_result(run)
    found = {**({"result": result} if result else {}), **evaluations(run)}
    if not found:
        return "No figures were measured.\n"
    return "\n".join(f"### {name}\n\n{_figures(content)}" for name, content in found.items())


def _figures(content: Mapping[str, Any]) -> str:
    figures = {name: value for name, value in content.items() if isinstance(value, int | float)}
    rows = "".join(f"| {name} | {value:.6g} |\n" for name, value in figures.items())
    card = json.dumps(content.get("card", {}), indent=1, ensure_ascii=False)
    return f"| figure | value |\n|---|---|\n{rows}\nHow they were made:\n\n```json\n{card}\n```\n"
