"""Names of options: their spelling, alike for every verb, and what other programs call them."""

import re
from collections.abc import Iterable, Sequence

from platform_core.component import ROLES
from platform_core.errors import UsageError, did_you_mean, either


def underscored(argv: Sequence[str]) -> list[str]:
    """Replaces `-` by `_` in names of options, so that both are accepted; values stay unchanged.

    Raises:
        UsageError: an option's value is `--`, which argparse would take away.
    """
    words = []
    for word in argv:
        name, equals, value = word.partition("=")
        if name.startswith("--") and len(name) > 2:
            if value == "--":
                raise UsageError(f"{name} is --, which no option takes; give it a value")
            word = "--" + name[2:].replace("-", "_") + equals + value
        words.append(word)
    return words


_OF_A_PART = re.compile(rf"--({'|'.join(ROLES)})\.\w+(=.*)?", re.DOTALL)


def split_options(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Options of parts, each joined with its value to one word, and all other words."""
    options, others = [], []
    rest = iter(words)
    for word in rest:
        found = _OF_A_PART.fullmatch(word)
        if found is None:
            others.append(word)
        elif found[2] is not None:
            options.append(word)
        else:
            value = next(rest, None)
            if value is None or value.startswith("--"):
                raise UsageError(f"{word} needs a value: {word} VALUE")
            options.append(f"{word}={value}")
    return options, others


OTHER_NAMES = {
    "lr": "train.learning_rate",
    "max_steps": "train.steps",
    "iterations": "train.steps",
    "iters": "train.steps",
    "bs": "train.batch_size",
    "per_device_train_batch_size": "train.batch_size",
    "global_batch_size": "train.batch_size",
    "gradient_accumulation_steps": "train.accumulate",
    "grad_accum": "train.accumulate",
    "warmup": "train.warmup_steps",
    "lr_scheduler": "train.decay",
    "optim": "train.optimizer",
    "wd": "train.weight_decay",
    "grad_clip": "train.clip",
    "max_grad_norm": "train.clip",
    "ema": "train.ema_decay",
    "dtype": "train.precision",
    "bf16": "train.precision",
    "fp16": "train.precision",
    "mixed_precision": "train.precision",
    "torch_compile": "train.compile",
    "save_every": "train.checkpoint_every",
    "save_steps": "train.checkpoint_every",
    "eval_every": "train.evaluate_every",
    "eval_steps": "train.evaluate_every",
    "log_interval": "train.log_every",
    "dataset": "data.corpus",
    "data": "data.corpus",
    "train_file": "data.path",
    "text_column": "data.column",
    "seq_len": "data.length",
    "seq_length": "data.length",
    "context_length": "data.length",
    "block_size": "data.length",
    "max_length": "data.length",
    "num_samples": "sample.number",
    "n_samples": "sample.number",
    "n": "sample.number",
    "cfg": "sample.guidance",
    "cfg_scale": "sample.guidance",
    "sampling_steps": "sampler.steps",
    "num_sampling_steps": "sampler.steps",
    "nfe": "sampler.steps",
    "nucleus": "sampler.top_p",
    "p": "sampler.top_p",
    "k": "sampler.top_k",
    "temp": "sampler.temperature",
    "dim": "backbone.hidden_size",
    "d_model": "backbone.hidden_size",
    "n_embd": "backbone.hidden_size",
    "layers": "backbone.num_blocks",
    "num_layers": "backbone.num_blocks",
    "n_layer": "backbone.num_blocks",
    "depth": "backbone.num_blocks",
    "heads": "backbone.num_heads",
    "n_head": "backbone.num_heads",
    "model_size": "backbone.size",
    "noise": "schedule",
    "noise_schedule": "schedule",
    "loss": "objective",
    "loss_type": "objective",
    "diffusion": "process",
    "algo": "process",
    "method": "process",
    "model": "backbone",
    "architecture": "backbone",
    "arch": "backbone",
    "output_dir": "output",
    "out": "output",
    "o": "output",
    "run_name": "output",
    "from_checkpoint": "init",
    "checkpoint": "init",
    "ckpt": "init",
    "load": "init",
    "continue": "resume",
    "tracker": "track.to",
    "report_to": "track.to",
    "logger": "track.to",
    "wandb": "track.to",
    "tensorboard": "track.to",
}
"""Names that other programs have for options of this one."""

_DEVICE = "the device is chosen automatically; CUDA_VISIBLE_DEVICES chooses among GPUs, empty none"
ADVICE = {
    "device": _DEVICE,
    "devices": _DEVICE,
    "gpu": _DEVICE,
    "gpus": _DEVICE,
    "cpu": _DEVICE,
    "cuda": _DEVICE,
    "num_gpus": "start a process for each: torchrun --nproc_per_node N -m platform_core.cli run",
    "epochs": "training is counted in updates: --train.steps",
    "num_epochs": "training is counted in updates: --train.steps",
    "num_train_epochs": "training is counted in updates: --train.steps",
    "workers": "batches are fetched ahead by one thread where that helps, without an option",
    "num_workers": "batches are fetched ahead by one thread where that helps, without an option",
    "verbose": "the record of a run is RUN/metrics.jsonl; `platform plugins -v` lists plugins",
    "project": "the project or experiment of trackers is the process, or the sweep",
}
"""What to do instead of an option that does not exist."""


def meant(word: str, known: Iterable[str]) -> str:
    """End of a message on an unknown option: the option that it is called here, or advice.

    Args:
        word: the unknown option, with or without dashes and section.
        known: all options, without dashes.
    """
    name = word.lstrip("-").rpartition(".")[2].replace("-", "_").lower()
    known = list(known)
    same = [f"--{key}" for key in known if key.rpartition(".")[2] == name]
    if same and word.lstrip("-") == name:
        return f"; did you mean {either(same)}?"
    if OTHER_NAMES.get(name) in known:
        return f"; it is --{OTHER_NAMES[name]} here"
    if name in ADVICE:
        return f"; {ADVICE[name]}"
    dashes = "--" if word.startswith("--") else ""
    return did_you_mean(word, [f"{dashes}{key}" for key in known])
