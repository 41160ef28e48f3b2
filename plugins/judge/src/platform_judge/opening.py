"""Opening of the judge that `--judge` names: a run, a network of transformers, or a .gguf file."""

from pathlib import Path

from accelerate import Accelerator

from platform_core.errors import UsageError
from platform_core.record.directory import RunDirectory
from platform_core.registry.parts import Plugins
from platform_judge.judge import POSSIBLE, Judge, RunJudge


def open_judge(source: str, accelerator: Accelerator, plugins: Plugins) -> Judge:
    """The judge of a run directory, a folder or name of transformers, or a .gguf file.

    Args:
        source: path or name of the judge.
        accelerator: accelerator to whose device the judge goes; the judge computes in float32.
        plugins: where the parts of a run come from.

    Raises:
        UsageError: there is no such judge, or it is no causal language model.
    """
    path = Path(source).expanduser()
    if (path / "config.yaml").is_file():
        return RunJudge.open(RunDirectory(path), accelerator, plugins)
    if not path.exists() and (path.suffix == ".gguf" or source.startswith((".", "/", "~"))):
        raise UsageError(f"there is no judge {source}; {POSSIBLE}")
    from platform_judge.pretrained import open_pretrained

    return open_pretrained(source, accelerator.device)
