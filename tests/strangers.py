"""Packages of strangers, as if pip had installed them, where there is no network for pip to use.

`pip install -e .` makes a dist-info with the entry points and puts `src` on the path; so does this.
"""

import os
import sysconfig
import tomllib
import venv
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path


def install(package: Path, site: Path) -> Path:
    """Writes the dist-info that pip would write into `site`; returns the package's sources."""
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    folder = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    folder.mkdir(parents=True)
    metadata = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (folder / "METADATA").write_text(metadata)
    points = [
        line
        for group, entries in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in entries.items()))
    ]
    (folder / "entry_points.txt").write_text("\n".join(points) + "\n")
    return package / "src"


def environment(*paths: Path) -> Mapping[str, str]:
    """That of a process which also finds what is in these directories."""
    present = os.environ.get("PYTHONPATH", "")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*map(str, paths), present])}


def fresh_environment(folder: Path) -> Path:
    """A new virtual environment that also has all that is installed here; its folder of programs.

    What pip installs into it stays there. `platform` is a program of it.
    """
    shared = find_spec("pip") is not None  # to install it again takes seconds
    venv.create(folder, with_pip=not shared)
    binaries, purelib = folder / "bin", sysconfig.get_path("purelib")
    # Not as a plain path: then the .pth files of editable installations there would not be read.
    (packages(folder) / "here.pth").write_text(f"import site; site.addsitedir({purelib!r})\n")
    modules = {"platform": "platform_core.cli"}
    if shared:
        modules["pip"] = "pip._internal.cli.main"
    for name, module in modules.items():
        program = binaries / name
        program.write_text(
            f"#!{binaries / 'python'}\nfrom {module} import main\n\nraise SystemExit(main())\n"
        )
        program.chmod(0o755)
    return binaries


def packages(folder: Path) -> Path:
    """Where a virtual environment has its packages."""
    return Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
