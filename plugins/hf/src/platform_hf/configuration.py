"""Configurations of transformers networks: model type, sizes and number of states.

    config.json of a folder or of a repository, or a model type's defaults
        <- sizes and fields of the user, under the names of that model type
        <- the number of states

Model types name their sizes differently (`n_embd`, `dim`, `hidden_size`); `Names` finds the field
for each of the platform's names. Used by `network`, which builds the network of a configuration.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING, PretrainedConfig

from platform_core.data.hub import quiet, reachable
from platform_core.errors import UsageError, did_you_mean
from platform_core.foreign import MAX_LAYERS, read_network_config, require_sizes
from platform_hf.library import FAILURES, said

Fields = Mapping[str, Any]

SUGGESTED = "bert, modernbert, roberta, gpt2 or llama"

LIBRARY_NAMES = {
    "hidden_size": "hidden_size",
    "num_blocks": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "max_length": "max_position_embeddings",
}
"""Platform's name of a size -> transformers' name, which a model type may map to its own."""

MLP_WIDTHS = ("intermediate_size", "ffn_dim", "n_inner", "hidden_dim", "ffn_hidden_size")
"""Names that model types give to the width of their MLPs."""

MOST = 10**7
"""The largest width or length that an option may ask for."""

PER_LAYER = ("layer_types", "mlp_layer_types")
"""Fields with an entry for each layer; they are made anew for another number of layers."""


@dataclass(frozen=True)
class Sizes:
    """Sizes by the platform's names; None keeps the value of the configuration."""

    hidden_size: int | None = None
    num_blocks: int | None = None
    num_heads: int | None = None
    mlp_ratio: int | None = None
    max_length: int | None = None
    dropout: float | None = None

    def __post_init__(self) -> None:
        for name, value in self.given().items():
            most = MAX_LAYERS if name == "num_blocks" else MOST
            if value > most:
                raise UsageError(f"{name} is {value}, but can be at most {most:,}")

    def given(self) -> dict[str, Any]:
        """The sizes that are not None."""
        return {name: value for name, value in vars(self).items() if value is not None}


TINY = Sizes(hidden_size=128, num_blocks=4, num_heads=4, mlp_ratio=4)
"""Default sizes of a bare model type, for a CPU; those of `tiny` of the backbone dit."""


OF_MACHINES = ("auto_map", "transformers_version", "_name_or_path", "_commit_hash")
"""Fields of config.json that say where the network comes from, and that no run keeps."""


def keep(source: str) -> str:
    """The fields of a source's config.json as text that a run keeps, with the source's name.

    Raises:
        UsageError: as `read`.
    """
    fields = {name: value for name, value in read(source).items() if name not in OF_MACHINES}
    return json.dumps({"of": source, "fields": fields}, ensure_ascii=False)


def kept_fields(source: str, kept: str | None) -> Fields | None:
    """The fields that a run has kept of a source; None where it has kept those of no such source.

    Raises:
        UsageError: the kept text is none that `keep` wrote.
    """
    if kept is None:
        return None
    try:
        values = json.loads(kept)
        of, fields = values["of"], values["fields"]
        if not isinstance(fields, dict):
            raise TypeError("fields")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(
            "--backbone.description is no description that a run has kept; leave it out"
        ) from error
    require_sizes(fields, "--backbone.description")
    found: Fields | None = fields if of == source else None
    return found


def configure(
    source: str,
    sizes: Sizes,
    fields: Fields,
    *,
    num_states: int | None = None,
    kept: str | None = None,
) -> PretrainedConfig:
    """The configuration of a source, with changed sizes, fields and number of states.

    Args:
        source: a model type; a folder with config.json; or a repository of the hub.
        sizes: sizes that replace those of the source; by default a bare model type is `TINY`.
        fields: further fields, by the names of the model type.
        num_states: size of the vocabulary; by default the source's own.
        kept: what a run has kept of the source, which then need not be there any more.

    Raises:
        UsageError: there is no such source or field, or the values do not fit each other.
    """
    if is_model_type(source):
        given: Fields = {"model_type": source}
    else:
        given = kept_fields(source, kept) or read(source)
    model_type = given.get("model_type", "")
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        raise UsageError(_unknown_type(source, model_type))
    names = Names(model_type)
    names.require(fields)
    if is_model_type(source):
        sizes = replace(names.those_of(TINY), **sizes.given())
    changes = {**names.changes(sizes, {**names.defaults, **given}), **fields}
    stale = PER_LAYER if sizes.num_blocks is not None else ()
    unchanged = {k: v for k, v in given.items() if k not in (*stale, "auto_map", "model_type")}
    return _make(names, {**unchanged, **changes}, num_states)


def is_model_type(source: str) -> bool:
    """Whether the source is a bare model type, such as bert."""
    return source in CONFIG_MAPPING


def is_folder(source: str) -> bool:
    """Whether the source is a folder on this machine."""
    return not is_model_type(source) and Path(local(source)).is_dir()


def local(source: str) -> str:
    """The source with the home directory written out."""
    return str(Path(source).expanduser()) if source.startswith("~") else source


def read(source: str) -> Fields:
    """The fields of config.json, in a folder or in a repository of the hub.

    Raises:
        UsageError: there is no config.json that can be read.
    """
    if is_folder(source):
        file = Path(local(source)) / "config.json"
        if not file.is_file():
            raise UsageError(f"{source} has no config.json; give a folder that has one")
        return read_network_config(file)
    try:
        with quiet():
            found, _ = PretrainedConfig.get_config_dict(
                local(source), local_files_only=not reachable()
            )
    except (OSError, ValueError) as error:
        near = did_you_mean(source, CONFIG_MAPPING)
        raise UsageError(
            f"{source} is neither a model type nor a folder, and the hub does not give it: "
            f"{said(error)}{near or f'; give a folder, or a model type such as {SUGGESTED}'}"
        ) from error
    fields: Fields = found
    require_sizes(fields, f"config.json of {source}")
    return fields


class Names:
    """The fields of one model type and their defaults."""

    def __init__(self, model_type: str) -> None:
        self.config_class: type[PretrainedConfig] = CONFIG_MAPPING[model_type]
        self.model_type = model_type
        own = dataclasses.fields(self.config_class)
        self.defaults = {field.name: field.default for field in own}

    def require(self, names: Fields) -> None:
        """Raises UsageError for the first name that is no field."""
        known = {*self.defaults, *self.config_class.attribute_map}
        for name in names:
            if name not in known:
                near = did_you_mean(name, known) or "; config.json of such a network lists them"
                raise UsageError(f"model type {self.model_type} has no field {name}{near}")

    def those_of(self, sizes: Sizes) -> Sizes:
        """The sizes that the model type has, others None; a type without attention has no heads."""
        lacking = [
            name for name, own in LIBRARY_NAMES.items() if self.field(own) not in self.defaults
        ]
        return replace(sizes, **dict.fromkeys(lacking))

    def changes(self, sizes: Sizes, before: Fields) -> dict[str, Any]:
        """The fields of the configuration that the given sizes change, with their new values.

        Args:
            sizes: the requested sizes.
            before: all fields before the change.
        """
        changes = {
            self._own(LIBRARY_NAMES[name]): value
            for name, value in sizes.given().items()
            if name in LIBRARY_NAMES
        }
        after = {**before, **changes}
        if "hidden_size" in sizes.given() or "num_heads" in sizes.given():
            changes |= self._heads(after)
        if sizes.mlp_ratio is not None:
            changes |= self._mlp(sizes.mlp_ratio * after[self._own("hidden_size")])
        if sizes.dropout is not None:
            changes |= dict.fromkeys(self._dropouts(), sizes.dropout)
        return changes

    def field(self, name: str) -> str:
        """The model type's own name of a field."""
        found: str = self.config_class.attribute_map.get(name, name)
        return found

    def _own(self, name: str) -> str:
        own = self.field(name)
        if own not in self.defaults:
            raise UsageError(
                f"model type {self.model_type} has no {name}; leave that size out and set the "
                "fields that it has, with --backbone.fields"
            )
        return own

    def _heads(self, after: Fields) -> dict[str, Any]:
        """As many key-value heads as query heads, and the head size that fits the width."""
        heads = after.get(self.field("num_attention_heads"))
        if heads is None:
            return {}
        changes = {"num_key_value_heads": heads} if "num_key_value_heads" in after else {}
        if after.get("head_dim") is not None:
            changes["head_dim"] = after[self._own("hidden_size")] // max(1, heads)
        return changes

    def _mlp(self, width: int) -> dict[str, Any]:
        found = [name for name in MLP_WIDTHS if name in self.defaults]
        return {found[0]: width} if found else {}

    def _dropouts(self) -> Iterator[str]:
        for name, default in self.defaults.items():
            of_another_task = "classifier" in name or "summary" in name
            is_number = isinstance(default, float | int) and not isinstance(default, bool)
            if "drop" in name and is_number and not of_another_task:
                yield name


def _make(names: Names, fields: Fields, num_states: int | None) -> PretrainedConfig:
    if num_states is not None:
        fields = {**_within(fields, names.defaults, num_states), "vocab_size": num_states}
    check_heads(names, fields)
    try:
        with quiet():
            return names.config_class.from_dict(dict(fields))
    except FAILURES as error:
        raise UsageError(f"model type {names.model_type}: {said(error)}") from error


def _within(fields: Fields, defaults: Fields, num_states: int) -> Fields:
    """Set the ids of special tokens beyond the vocabulary to 0.

    Token 0 stays an ordinary token: texts have no padding here, and `network.build` lets the row of
    the padding token learn.
    """
    special = {
        name: value for name, value in {**defaults, **fields}.items() if name.endswith("_token_id")
    }
    beyond = [
        name
        for name, value in special.items()
        if isinstance(value, list) or (isinstance(value, int) and value >= num_states)
    ]
    return {**fields, **dict.fromkeys(beyond, 0)}


def check_heads(names: Names, fields: Fields) -> None:
    """Raises UsageError if the width does not split into heads and no field sets their size."""
    before = {**names.defaults, **fields}
    if before.get("head_dim") is not None:
        return
    width, heads = (
        before.get(names.field(name)) for name in ("hidden_size", "num_attention_heads")
    )
    if not isinstance(width, int) or not isinstance(heads, int):
        return
    if width < 1 or heads < 1:
        raise UsageError(f"hidden_size {width} and num_heads {heads} must be at least 1")
    # Rotary positions need heads of even size.
    step = 2 * heads if "rope_parameters" in before else heads
    if width % step:
        below = width // step * step
        works = f"{below} or {below + step}" if below else f"{step}"
        even = " of even size" if step > heads else ""
        raise UsageError(
            f"hidden_size {width} does not split into {heads} heads{even}; "
            f"choose hidden_size {works}, or another num_heads"
        )


def _unknown_type(source: str, model_type: object) -> str:
    if not model_type or not isinstance(model_type, str):
        return f"config.json of {source} has no model_type; add one, such as {SUGGESTED}"
    near = did_you_mean(model_type, CONFIG_MAPPING)
    return f"transformers knows no model type {model_type!r}, which {source} has{near}"
