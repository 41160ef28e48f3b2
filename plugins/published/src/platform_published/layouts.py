"""Published checkpoints: Lightning files of the DUO and MDLM code, and folders of the hub.

    Lightning   state_dict: backbone.*; ema: {decay, num_updates, shadow_params: a list in the order
                of the parameters}; hyper_parameters: the configuration and the tokenizer
    hub         config.json and model.safetensors, backbone.*: s-sahoo/duo, kuleshov-group/mdlm-owt

`read_published` describes a checkpoint by options of `platform run`, so that composition checks
them like a user's options. Sizes that the configuration lacks are inferred from the tensors.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from platform_core.errors import UsageError
from platform_core.foreign import (
    INDEX,
    MAX_CONFIG_BYTES,
    WEIGHTS,
    read_object,
    read_weights,
    unwrapped,
)
from platform_published.pickles import ForeignError, Inert, Stored, TorchArchive, plain

PREFIX = "backbone."
PREFIXES = (PREFIX, "", "backbone.module.", "model.", "model.backbone.")
"""What the names of a network's tensors begin with; bare names are those of the SEDD code."""

TOPS = ("vocab_embed.", "sigma_map.", "rotary_emb.", "blocks.", "output_layer.")
"""What all names of the published network begin with."""

EMBEDDING = "vocab_embed.embedding"
LAST = "output_layer.linear.weight"
OF_STATES = (EMBEDDING, LAST, "output_layer.linear.bias")
"""Tensors with a row for each state."""

FAMILIES = {
    "duo": "duo",
    "duo_base": "duo",
    "distillation": "duo",
    "mdlm": "mdlm",
    "subs": "mdlm",
    "sedd": "sedd",
    "d3pm": "d3pm",
    "ar": "ar",
}
"""Process of each algorithm and parameterization of the published code."""

CONDITIONED = ("duo", "sedd", "d3pm", "uniform")
"""Processes that always tell the network the noise level."""

OPTIONALLY_CONDITIONED = ("mdlm", "absorbing")

SPECIAL = {
    "text8": {"mask_token": 4, "bos_token": 2},
    "bert-base-uncased": {"mask_token": 103, "bos_token": 101},
    "gpt2": {"bos_token": 50256},
}
"""Special tokens of the published code's tokenizers, for checkpoints without a tokenizer: the mask,
if it is one of the tokens, and the token in front of every text.
"""


@dataclass(frozen=True)
class Published:
    """A checkpoint of other code."""

    layout: str
    words: Sequence[str]
    """Options of `platform run` that compose the checkpoint's network."""
    ema: Mapping[str, Tensor]
    model: Mapping[str, Tensor]
    """The last weights; the averaged weights if the checkpoint has no others."""
    step: int
    ema_updates: int
    mask_id: int | None
    """The state that is the mask (for ar, the state that is never predicted); None for the last."""
    ignored: Sequence[str]
    """Names of the checkpoint's content that was not read."""
    notes: Sequence[str]


def read_published(
    path: Path, *, process: str | None = None, mask_id: int | None = None
) -> Published:
    """Read the published checkpoint at a path.

    Args:
        path: a Lightning checkpoint, or a folder with config.json and model.safetensors.
        process: the family, where the user names it.
        mask_id: the state that is the mask, where the user names it.

    Raises:
        UsageError: there is no whole checkpoint of a known layout, or the user must name something.
    """
    if path.is_dir():
        return _read_folder(path, process=process, mask_id=mask_id)
    if not path.exists():
        raise UsageError(f"{path} does not exist; name a .ckpt file or a folder of the hub")
    return _read_lightning(path, process=process, mask_id=mask_id)


def _read_lightning(path: Path, *, process: str | None, mask_id: int | None) -> Published:
    with TorchArchive(path) as archive:
        content = archive.content
        holder, all_tensors = _state_dict(content, path)
        state = {name: t for name, t in all_tensors.items() if isinstance(t, Stored)}
        stored = _network(state, path)
        shadow, decayed = _shadow(content.get("ema"), stored, path)
        ignored = [name for name in content if name not in (holder, "ema")] if holder else []
        ignored += _unread(state)
        model = {name: archive.read(tensor) for name, tensor in stored.items()}
        ema = model | {name: archive.read(tensor) for name, tensor in shadow.items()}
        step = content.get("global_step", content.get("step"))
    hyper = content.get("hyper_parameters")
    hyper = hyper if isinstance(hyper, dict) else {}
    config = plain(hyper.get("config", {}))
    facts = _Facts(path, config if isinstance(config, dict) else {}, model, process)
    tokens = _special_tokens(hyper.get("tokenizer"))
    if tokens is None:
        tokens = SPECIAL.get(str(facts.get("data.tokenizer_name_or_path")), {})
    words, notes = facts.words(), []
    mask_id = tokens.get("mask_token") if mask_id is None else mask_id
    if facts.process == "ar":
        start = tokens.get("bos_token")
        if start is not None:
            start -= mask_id is not None and start > mask_id  # the mask goes behind the others
            words.append(f"--process.start_id={start}")
    if not shadow:
        notes.append("the checkpoint has no averaged weights; ema and raw are the same")
    return Published(
        layout={"state_dict": "Lightning checkpoint", "model": "checkpoint of the SEDD code"}.get(
            holder, "file of weights"
        ),
        words=words,
        ema=ema,
        model=model,
        step=step if type(step) is int and step >= 0 else 0,
        ema_updates=decayed,
        mask_id=mask_id,
        ignored=[str(name) for name in ignored],
        notes=notes,
    )


def _state_dict(content: object, path: Path) -> tuple[str, dict[Any, Any]]:
    """The key that holds a file's tensors, and these by name; the key is empty for bare weights.

    Raises:
        UsageError: the file has no tensors in a known place.
    """
    if isinstance(content, dict):
        for key in ("state_dict", "model"):  # of Lightning, and of the SEDD code
            if isinstance(content.get(key), dict):
                return key, content[key]
        if content and all(isinstance(tensor, Stored) for tensor in content.values()):
            return "", content
    raise UsageError(
        f"{path} is a file of torch.save but no Lightning checkpoint (no state_dict), none of the "
        "SEDD code (no model) and no file of weights alone"
    )


def _read_folder(path: Path, *, process: str | None, mask_id: int | None) -> Published:
    config = read_config(path)
    if not (path / WEIGHTS).is_file() and not (path / INDEX).is_file():
        raise UsageError(f"{path} has no {WEIGHTS}; a pickled model of transformers is not read")
    tensors = read_weights(path)
    model = _network(tensors, path / WEIGHTS)
    facts = _Facts(path / "config.json", config, model, process)
    return Published(
        layout=f"hub folder of model type {config.get('model_type')}",
        words=facts.words(),
        ema=model,
        model=model,
        step=0,
        ema_updates=0,
        mask_id=mask_id,
        ignored=_unread(tensors),
        notes=["one set of weights: ema and raw are the same"],
    )


def read_config(path: Path) -> dict[str, Any]:
    """Read the config.json of a hub folder.

    Raises:
        UsageError: there is no such file, or it is no JSON object.
    """
    file = path / "config.json"
    if not file.exists():
        raise UsageError(f"{path} is no hub folder (it has no config.json)")
    return read_object(file, MAX_CONFIG_BYTES)


class _Facts:
    """Options inferred from a checkpoint's configuration and tensors.

    Args:
        source: file that errors name.
        config: content of the configuration.
        tensors: tensors of the network.
        process: the family that the user names, if any.
    """

    def __init__(
        self,
        source: Path,
        config: Mapping[str, Any],
        tensors: Mapping[str, Tensor],
        process: str | None,
    ) -> None:
        self._source, self._config, self._tensors = source, config, tensors
        self.process = process or self._family()

    def get(self, *keys: str) -> Any:
        """The value of the first of the dotted keys that has one; interpolations are left out."""
        for key in keys:
            value: Any = self._config
            for part in key.split("."):
                value = value.get(part) if isinstance(value, Mapping) else None
            if value is not None and not (isinstance(value, str) and "${" in value):
                return value
        return None

    def words(self) -> list[str]:
        """Options of `platform run` that compose the network."""
        options = {f"backbone.{name}": value for name, value in self._sizes().items()}
        options |= {"data.length": self.get("model.length", "model_length")}
        words = [f"--process={self.process}", "--backbone=dit"]
        words += [f"--{key}={_word(value)}" for key, value in options.items() if value is not None]
        return [*words, *self._family_words()]

    def _family(self) -> str:
        named = self.get("algo.name", "parameterization", "model_type")
        process = FAMILIES.get(str(named))
        if process is None and self.get("graph.type") is not None:
            process = "sedd"  # whose code names the noise alone
        if process == "d3pm" and self.get("diffusion") == "uniform":
            process = "duo"  # UDLM's code: uniform noise in continuous time
        if process is None and self._tensors and "sigma_map.mlp.0.weight" not in self._tensors:
            process = "ar"
        if process is None:
            said = "names no algorithm" if named is None else f"is of {str(named)[:40]!r}"
            raise UsageError(
                f"{self._source} {said}; name its family with --process "
                f"{', '.join(sorted(set(FAMILIES.values())))}"
            )
        return process

    def _sizes(self) -> dict[str, Any]:
        """Sizes of the network, from the configuration or else from the tensors' shapes."""
        shapes = {name: tensor.shape for name, tensor in self._tensors.items()}
        hidden = shapes[EMBEDDING][-1]
        blocks = {match[1] for name in shapes if (match := re.match(r"blocks\.(\d+)\.", name))}
        inner = self._rows("blocks.0.mlp.0.weight")
        cond = self._rows("sigma_map.mlp.0.weight")
        half = self._rows("rotary_emb.inv_freq")
        inferred = {
            "hidden_size": hidden,
            "num_blocks": len(blocks),
            "num_heads": hidden // (2 * half) if half else None,
            "cond_size": cond,
            "mlp_ratio": inner // hidden if inner and hidden else None,
        }
        given = {
            "hidden_size": self.get("model.hidden_size", "hidden_dim"),
            "num_blocks": self.get("model.n_blocks", "n_blocks"),
            "num_heads": self.get("model.n_heads", "n_heads"),
            "cond_size": cond and self.get("model.cond_dim", "cond_dim"),
            "dropout": self.get("model.dropout", "dropout"),
            "tie_embeddings": LAST not in shapes or self.get("model.tie_word_embeddings"),
        }
        given = {name: value for name, value in given.items() if value is not None}
        for name, value in given.items():
            if inferred.get(name) not in (None, value):
                raise UsageError(
                    f"{self._source} says {name} {str(value)[:40]}, but its tensors are of another "
                    f"architecture: {name} {inferred[name]}"
                )
        return inferred | given

    def _rows(self, name: str) -> int | None:
        """The first dimension of a tensor; None where it is missing."""
        tensor = self._tensors.get(name)
        return None if tensor is None or not tensor.shape else tensor.shape[0]

    def _family_words(self) -> Iterator[str]:
        conditioned = self.get("algo.time_conditioning", "time_conditioning")
        if self.process in OPTIONALLY_CONDITIONED:
            yield f"--process.time_conditioned={_word(bool(conditioned))}"
        if self.process in CONDITIONED and conditioned is False:
            raise UsageError(
                f"{self._source} is of a network that is told no noise level, but process "
                f"{self.process} always tells it; name another with --process"
            )
        if self.process == "sedd" and "uniform" in (self.get("diffusion"), self.get("graph.type")):
            raise UsageError(
                f"{self._source} has scores for uniform noise, which parameterization score does "
                "not support; no process of the platform fits"
            )
        if self.process != "ar":
            yield from self._schedule()
        if self.process == "d3pm" and self.get("subs_masking", "algo.subs_masking"):
            yield "--parameterization=subs"
        if self.process == "sedd" and self.get("model.scale_by_sigma") is False:
            raise UsageError(
                f"{self._source} has scores that are not scaled by sigma, which parameterization "
                "score does not support"
            )
        steps = self.get("algo.T", "T")
        if self.process in ("mdlm", "d3pm") and isinstance(steps, int) and steps > 0:
            yield f"--objective.num_steps={steps}"
        elif self.process == "d3pm" and steps == 0:
            yield "--objective=nelbo"

    def _schedule(self) -> Iterator[str]:
        kind, eps = self.get("noise.type"), self.get("noise.eps")
        # The cosine of the older code differs from that of the newer code, which the platform has.
        newer = self.get("algo.name") is not None
        known = {"log-linear": "log-linear", "loglinear": "log-linear", "geometric": "geometric"}
        known |= {"cosine": "cosine"} if newer else {}
        if kind is None:
            return
        if kind not in known:
            raise UsageError(
                f"{self._source} has noise {str(kind)[:40]!r}, a curve that is not among the "
                "platform's; name the nearest with --schedule"
            )
        yield f"--schedule={known[kind]}"
        if known[kind] == "geometric":
            for end in ("sigma_min", "sigma_max"):
                if (value := self.get(f"noise.{end}")) is not None:
                    yield f"--schedule.{end}={_word(value)}"
        elif eps is not None:
            yield f"--schedule.eps={_word(eps)}"


def _network(tensors: Mapping[Any, Any], path: Path) -> dict[str, Any]:
    """The backbone's tensors under their own names, tied ones once.

    Raises:
        UsageError: there are no tensors of the known network.
    """
    prefix = _prefix(tensors)
    found = {
        unwrapped(name).removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if _is_read(name, prefix)
    }
    embedding = found.get(EMBEDDING)
    if embedding is None or len(embedding.shape) != 2:
        raise UsageError(
            f"{path} is of an unknown layout: it holds no {PREFIX}{EMBEDDING}, which every "
            "published DUO, MDLM, SEDD, D3PM and AR checkpoint has"
        )
    last = found.get(LAST)
    if isinstance(last, Stored) and last.place == embedding.place:
        del found[LAST]
    return found


def _prefix(tensors: Mapping[Any, Any]) -> str:
    """What stands in front of the names of the network's tensors."""
    names = {unwrapped(name) for name in tensors if isinstance(name, str)}
    return next((prefix for prefix in PREFIXES if f"{prefix}{EMBEDDING}" in names), PREFIX)


def _is_read(name: object, prefix: str) -> bool:
    """Whether a tensor is one of the network's."""
    if not isinstance(name, str) or not unwrapped(name).startswith(prefix):
        return False
    return prefix == PREFIX or unwrapped(name).removeprefix(prefix).startswith(TOPS)


def _unread(tensors: Mapping[Any, Any]) -> list[str]:
    """The names of the tensors that are none of the network's."""
    prefix = _prefix(tensors)
    return [str(name) for name in tensors if not _is_read(name, prefix)]


def _shadow(ema: object, stored: Mapping[str, Stored], path: Path) -> tuple[dict[str, Stored], int]:
    """The averaged weights by name, and how often they were updated.

    Raises:
        UsageError: the averaged weights are not those of the network's parameters.
    """
    if not isinstance(ema, dict) or not isinstance(ema.get("shadow_params"), list):
        return {}, 0
    shadow, updates = ema["shadow_params"], ema.get("num_updates")
    # inv_freq is the only buffer of the network; the averaged weights are parameters alone.
    names = [name for name in stored if not name.endswith("inv_freq")]
    fits = len(names) == len(shadow) and all(
        isinstance(tensor, Stored) and tensor.shape == stored[name].shape
        for name, tensor in zip(names, shadow, strict=True)
    )
    if not fits:
        raise UsageError(
            f"{path} has {len(shadow)} averaged weights that are not those of its "
            f"{len(names)} parameters in their order"
        )
    return dict(zip(names, shadow, strict=True)), updates if type(updates) is int else 0


def _special_tokens(tokenizer: object) -> dict[str, int] | None:
    """Role (mask_token, bos_token) -> id in a pickled tokenizer; None if it shows no tokens."""
    state = tokenizer.state if isinstance(tokenizer, Inert) else None
    if not isinstance(state, dict) or not isinstance(state.get("_special_tokens_map"), dict):
        return None
    ids: dict[object, object] = {}
    for table in ("_vocab_str_to_int", "_added_tokens_encoder"):
        found = state.get(table)
        ids |= found if isinstance(found, dict) else {}
    ids |= _added_tokens(state.get("_tokenizer"))
    return {
        role: number
        for role, token in state["_special_tokens_map"].items()
        if isinstance(token, str) and type(number := ids.get(token)) is int
    }


def _added_tokens(tokenizer: object) -> dict[object, object]:
    """Ids of the added tokens of a `tokenizers` tokenizer, whose state is JSON."""
    state = tokenizer.state if isinstance(tokenizer, Inert) else None
    text = state.arguments if isinstance(state, Inert) else (state,)
    try:
        match text:
            case (str() | bytes() as written, *_):
                added = json.loads(written)["added_tokens"]
                return {token["content"]: token["id"] for token in added}
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return {}


def _word(value: object) -> str:
    if not isinstance(value, bool | int | float):
        raise ForeignError(f"the checkpoint's configuration has {str(value)[:40]!r} for a number")
    return json.dumps(value)
