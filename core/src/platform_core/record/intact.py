"""Whether a checkpoint is what was written, by the digests in its `state.json`; needs no torch."""

from pathlib import Path
from typing import Any

from platform_core.record.files import digest, digest_of, read_json

OWN_DIGEST = "digest"
"""What state.json calls the digest of its other values."""


def intact_state(folder: Path, step: int) -> tuple[dict[str, Any], list[Path]]:
    """The plain values of a checkpoint, and its files of tensors, which match their digests.

    Args:
        folder: folder of the checkpoint.
        step: the step that the folder's name says.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is damaged.
        KeyError: state.json lacks an entry.
    """
    state = read_json(folder / "state.json")
    # Checkpoints of before there was one have no digest of their own.
    written = state.pop(OWN_DIGEST, None)
    if written is not None and written != digest_of(state):
        raise ValueError("state.json is not what was written")
    files = state.pop("files")
    if type(state["step"]) is not int or state["step"] != step:
        raise ValueError(f"state.json says step {state['step']!r}")
    if not isinstance(files, dict) or "model.safetensors" not in files:
        raise ValueError("state.json does not name the files")
    for name, expected in files.items():
        if digest(folder / Path(name).name) != expected:
            raise ValueError(f"{name} does not match its digest")
    return state, [folder / Path(name).name for name in files]
