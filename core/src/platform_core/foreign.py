"""Files that other programs wrote: JSON objects and weights in safetensors, read with limits.

    config.json, tokenizer.json                        read_object
    model.safetensors, model.safetensors.index.json    read_weights, weight_files

Whatever is wrong with such a file is reported as one line that names the file. Nothing in a file is
executed, and no file makes the reader use much more memory than the file has bytes. Used wherever
weights, configurations or tokenizers come from elsewhere.
"""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platform_core.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

MAX_CONFIG_BYTES = 16 * 2**20
"""Longest configuration that is read; the longest known ones have half a megabyte of labels."""

MAX_OBJECT_BYTES = 256 * 2**20
"""Longest other JSON that is read; tokenizer.json of the largest vocabularies has 40 megabytes."""

MAX_LAYERS = 4096
"""A configuration with more layers is refused: building that many would take hours."""

COUNTS_LAYERS = re.compile(r"^(num_|n_|encoder_|decoder_)?(num_)?(hidden_)?(layers?|blocks|depth)$")
"""Names of fields that count layers: num_hidden_layers, n_layer, n_layers, n_blocks, depth."""

MAX_COUNT = 2**40
"""A configuration with a larger whole number is refused: it is no size of a network."""

PREFIXES = ("module.", "_orig_mod.")
"""What torch puts in front of the names of a network's tensors when it is wrapped or compiled."""


def read_object(file: Path, limit: int = MAX_OBJECT_BYTES) -> dict[str, Any]:
    """The JSON object in a file.

    Args:
        file: the file.
        limit: bytes that the file may have.

    Raises:
        UsageError: there is no such file, or it holds no JSON object.
    """
    try:
        size = file.stat().st_size
        if size > limit:
            raise UsageError(
                f"{file} has {size:,} bytes, but at most {limit:,} are read; name a whole and "
                "undamaged file"
            )
        values = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is damaged: it is not UTF-8 text") from error
    except json.JSONDecodeError as error:
        raise UsageError(
            f"{file} is damaged: it is not JSON (line {error.lineno}: {error.msg})"
        ) from error
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(f"{file} is damaged: {error}") from error
    except (RecursionError, MemoryError) as error:
        raise UsageError(f"{file} is damaged: it nests too deeply or is too large") from error
    if not isinstance(values, dict):
        raise UsageError(f"{file} is damaged: it holds no JSON object")
    return values


def read_network_config(file: Path) -> dict[str, Any]:
    """The config.json of a network, with sizes that a machine can build.

    Raises:
        UsageError: as `read_object`, or a size is no size of a network.
    """
    values = read_object(file, MAX_CONFIG_BYTES)
    require_sizes(values, str(file))
    return values


def require_sizes(values: object, source: str) -> None:
    """Raises UsageError if a number in a network's configuration is no size of a network.

    Args:
        values: the configuration, or a part of it.
        source: the file that the configuration is from, for the message.
    """
    waiting: list[tuple[str, object]] = [("", values)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, dict):
            waiting += [(str(key), inner) for key, inner in value.items()]
        elif isinstance(value, list):
            waiting += [(name, inner) for inner in value]
        elif isinstance(value, int) and abs(value) > _largest(name):
            raise UsageError(
                f"{source} says {name[:60]} {str(value)[:30]}, but at most {_largest(name):,} is "
                "possible; the file is damaged, or of no network"
            )


def _largest(name: str) -> int:
    return MAX_LAYERS if COUNTS_LAYERS.search(name) else MAX_COUNT


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder's weights: one, or the shards that its index names.

    Raises:
        UsageError: the folder has no such file, or its index is damaged or names a missing file.
    """
    whole, index = folder / WEIGHTS, folder / INDEX
    if whole.is_file():
        return [whole]
    if not index.is_file():
        raise UsageError(f"{folder} has no {WEIGHTS}; name a folder with weights in safetensors")
    shards = read_object(index).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise UsageError(f"{index} is damaged: it has no weight_map")
    names = {name for name in shards.values() if isinstance(name, str)}
    for name in shards.values():
        if not isinstance(name, str) or Path(name).name != name or not name.endswith("safetensors"):
            raise UsageError(
                f"{index} is damaged: it names {str(name)[:60]!r} as a file of weights"
            )
    files = [folder / name for name in sorted(names)]
    for file in files:
        if not file.is_file():
            raise UsageError(
                f"{folder} lacks {file.name}, a part of the weights; download it again"
            )
    return files


def read_tensors(file: Path) -> "dict[str, Tensor]":
    """The tensors of one safetensors file by name.

    Raises:
        UsageError: the file is missing or damaged, or does not fit into memory.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except FileNotFoundError as error:
        raise UsageError(f"{file} does not exist; name a folder with weights in safetensors") from (
            error
        )
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise UsageError(f"weights of {file} cannot be loaded: {_line(error)}") from error
    except MemoryError as error:
        raise UsageError(f"weights of {file} do not fit into memory") from error


def require_tensors(file: Path) -> None:
    """Check that a safetensors file is whole, without reading its numbers.

    Raises:
        UsageError: as `read_tensors`.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            opened.keys()
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise UsageError(f"weights of {file} cannot be loaded: {_line(error)}") from error


def read_weights(folder: Path) -> "dict[str, Tensor]":
    """The tensors of a folder's weights by name, whether in one file or in shards.

    Raises:
        UsageError: as `weight_files` and `read_tensors`; or two shards hold the same name.
    """
    found: dict[str, Tensor] = {}
    for file in weight_files(folder):
        tensors = read_tensors(file)
        if twice := sorted(found.keys() & tensors.keys()):
            raise UsageError(f"{file} is damaged: another file of {folder} also has {twice[0]}")
        found |= tensors
    return found


def unwrapped(name: str, prefixes: Sequence[str] = PREFIXES) -> str:
    """A tensor's name without what wrapping and compiling have put in front of it."""
    name = name.replace("_orig_mod.", "")
    while prefix := next((p for p in prefixes if name.startswith(p)), None):
        name = name.removeprefix(prefix)
    return name


def prefix_to_drop(names: Iterable[str], own: Iterable[str], prefixes: Sequence[str]) -> str:
    """The prefix without which most names are those of a network; empty where none helps.

    Args:
        names: of the tensors.
        own: the network's own names.
        prefixes: those that may be dropped.
    """
    there, known = list(names), set(own)

    def fitting(prefix: str) -> int:
        return sum(name.removeprefix(prefix) in known for name in there)

    best = max(prefixes, key=fitting, default="")
    return best if best and fitting(best) > fitting("") else ""


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
