"""Named corpora, JSON Lines, Parquet and saved folders, their splits, detokenizers and refusals."""

import json
import os
import shutil
import zipfile
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from platform_core.cli import main
from platform_core.composition.options import DataOptions
from platform_core.data.corpus import SPLITS, open_corpus
from platform_core.data.sequences import load_data
from platform_core.errors import UsageError
from platform_core.registry.loading import installed
from platform_hub import catalogue, local_files
from platform_hub import corpus as library
from platform_hub.detokenizers import DETOKENIZERS
from platform_hub.names import names

datasets.disable_progress_bars()

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(autouse=True)
def caches(tmp_path_factory, monkeypatch):
    caches = tmp_path_factory.mktemp("caches")
    monkeypatch.setenv("PLATFORM_CACHE", str(caches / "platform"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", caches / "hf")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def numbered(number, column="text"):
    return datasets.Dataset.from_dict({column: [f"document {i}\n" for i in range(number)]})


def corpus(name, path=None, **options):
    return open_corpus(DataOptions(corpus=name, path=path and str(path), **options))


def texts(name, path, split, **options):
    return [int(t.split()[1]) for t in corpus(name, path, **options).documents(split)]


def write(rows, file):
    file.parent.mkdir(parents=True, exist_ok=True)
    writers = {".jsonl": rows.to_json, ".parquet": rows.to_parquet, "": rows.save_to_disk}
    writers[file.suffix](str(file))
    return file


FORMATS = {"json": "all.jsonl", "parquet": "all.parquet", "saved": "folder"}


@pytest.mark.parametrize("format", FORMATS)
def test_what_one_split_lacks_is_held_out_of_it(tmp_path, format):
    file = write(numbered(45, "body"), tmp_path / FORMATS[format])
    found = {split: texts(format, file, split, column="body") for split in SPLITS}
    assert found["validation"] == [9, 29]
    assert found["test"] == [19, 39]
    assert sorted(sum(found.values(), [])) == list(range(45))
    assert found["train"] == sorted(found["train"])


@pytest.mark.parametrize("format", ["json", "parquet"])
def test_the_splits_of_a_folder_are_kept(tmp_path, format):
    suffix = Path(FORMATS[format]).suffix
    for number, split in enumerate(("train", "valid", "test"), start=1):
        write(numbered(number), tmp_path / f"{split}{suffix}")
    assert [texts(format, tmp_path, split) for split in SPLITS] == [[0], [0, 1], [0, 1, 2]]
    (tmp_path / f"test{suffix}").unlink()
    assert [len(texts(format, tmp_path, split)) for split in SPLITS] == [1, 2, 0]


def test_the_splits_of_a_saved_folder_are_kept(tmp_path):
    splits = {split: numbered(3 + n) for n, split in enumerate(SPLITS)}
    datasets.DatasetDict(splits).save_to_disk(tmp_path)
    assert [len(texts("saved", tmp_path, split)) for split in SPLITS] == [3, 4, 5]


def test_a_glob_names_files(tmp_path):
    for name in ("a", "b"):
        write(numbered(3), tmp_path / f"{name}.jsonl")
    assert texts("json", tmp_path / "*.jsonl", "train") == [0, 1, 2, 0, 1, 2]


COLUMNS = {"ptb": "sentence"} | dict.fromkeys(
    ("scientific-papers-pubmed", "scientific-papers-arxiv"), "article"
)


@pytest.mark.parametrize("name", names())
def test_every_entry_reads_a_local_copy(tmp_path, name):
    entry = catalogue.read(names()[name])
    many = name in ("openwebtext", "fineweb-edu")
    for split in {sliced.partition("[")[0] for sliced in entry.splits.values()}:
        rows = numbered(100_010 if many else 30, COLUMNS.get(name, "text"))
        write(rows, tmp_path / f"{split}.parquet")
    found = corpus(name, tmp_path)
    assert found.splits == tuple(split for split in SPLITS if split in entry.splits)
    for split in found.splits:
        assert "document" in next(found.documents(split))
    assert len(found.fingerprint()) == 64


def test_the_last_documents_of_openwebtext_are_held_out(tmp_path):
    write(numbered(100_010), tmp_path / "train.parquet")
    assert texts("openwebtext", tmp_path, "train") == list(range(10))
    assert next(corpus("openwebtext", tmp_path).documents("validation")) == "document 10\n"


@pytest.mark.slow
def test_a_copy_may_be_saved_or_hold_its_configuration_in_a_folder(tmp_path):
    splits = {split: numbered(3 + n) for n, split in enumerate(SPLITS)}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    assert len(texts("wikitext2", tmp_path / "saved", "test")) == 5
    for split in SPLITS:
        write(numbered(2), tmp_path / f"copy/wikitext-2-raw-v1/{split}.jsonl")
        write(numbered(9), tmp_path / f"copy/wikitext-103-raw-v1/{split}.jsonl")
    assert len(texts("wikitext2", tmp_path / "copy", "test")) == 2
    card = "configs:\n- config_name: wikitext-2-raw-v1\n  data_dir: two\n"
    card += "- config_name: wikitext-103-raw-v1\n  data_dir: many\n"
    for split in SPLITS:
        write(numbered(2), tmp_path / f"clone/two/{split}.jsonl")
        write(numbered(9), tmp_path / f"clone/many/{split}.jsonl")
    (tmp_path / "clone/README.md").write_text(f"---\n{card}---\n")
    assert len(texts("wikitext2", tmp_path / "clone", "test")) == 2
    assert len(texts("wikitext103", tmp_path / "clone", "test")) == 9


def test_documents_are_detokenized(tmp_path):
    write(datasets.Dataset.from_dict({"text": ["it 's , fine"]}), tmp_path / "test.parquet")
    assert next(corpus("lm1b", tmp_path).documents("test")) == "it's, fine"


@pytest.mark.parametrize("key", json.loads((GOLDEN / "q_detokenizers.json").read_text()))
def test_detokenizers_write_what_was_published(key):
    name = {"wt": "wikitext"}.get(key, key.replace("_", "-"))
    for case in json.loads((GOLDEN / "q_detokenizers.json").read_text())[key]:
        assert DETOKENIZERS[name](case["input"]) == case["output"]


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("wikitext", "a : b ; c . d ! e ? f , g", "a: b; c. d! e? f, g"),
        ("wikitext", "= = = = b", "==== b"),
        ("ptb", "$ N N # N ", "$1 1 #1 "),
        ("ptb", "$ N up", "$1 up"),
        ("lm1b", " a . b .", " a. b."),
        ("lm1b", "go : https : / / x", "go: https://x"),
        ("lm1b", "oh ! no ? yes !", "oh! no? yes!"),
        ("lm1b", "[ a ] ( b ) ' c ' \" d \"", "[a] (b) 'c' \"d\""),
        ("lambada", " \n", "\n"),
    ],
)
def test_detokenizers_apply_rules_in_their_order(name, before, after):
    assert DETOKENIZERS[name](before) == after


def test_entries_come_from_files_and_a_directory(tmp_path, monkeypatch):
    write(numbered(40), tmp_path / "rows/data.jsonl")
    entry = tmp_path / "mine.yaml"
    entry.write_text(f"path: {tmp_path / 'rows'}\nsplits: {{train: 'train[:30]', test: train}}\n")
    found = open_corpus(DataOptions(corpus=str(entry)))
    assert (found.splits, len(list(found.documents("train")))) == (("train", "test"), 30)
    with pytest.raises(UsageError, match="corpus mine has no validation text, only train, test"):
        next(found.documents("validation"))
    monkeypatch.setenv("PLATFORM_CORPORA", str(tmp_path))
    assert len(list(open_corpus(DataOptions(corpus="mine")).documents("test"))) == 40
    monkeypatch.setenv("PLATFORM_CORPORA", str(tmp_path / "no"))
    with pytest.raises(UsageError, match="which is no directory"):
        open_corpus(DataOptions(corpus="mine"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("column: text", "has no path; it needs one line at least"),
        ("- a", "has no path"),
        ("path: [", "is not YAML"),
        ("path: a\ncolum: b", "unknown key 'colum'; did you mean column?"),
        ("path: a\ncolumn: 3", "column is 3; it must be a text"),
        ("path: a\nsplits: train", "splits is 'train'; it must be a text for each split"),
        ("path: a\nsplits: {dev: train}", "splits has 'dev'; it must be train, validation or test"),
        ("path: a\ndetokenizer: wikitxt", "did you mean wikitext?"),
        ("path: a\nmarks: all", "marks has 'all'; it must be documents, none, published or chunks"),
        ("path: a\npacking: full", "packing has 'full'; it must be packed or padded"),
    ],
)
def test_entries_that_cannot_be_are_refused(tmp_path, content, message):
    file = tmp_path / "my.yaml"
    file.write_text(content)
    with pytest.raises(UsageError, match=message.replace("?", r"\?")):
        open_corpus(DataOptions(corpus=str(file)))


MISTAKES = {
    "a misspelt name": (dict(corpus="openwebtxt"), "did you mean openwebtext?"),
    "a missing entry": (dict(corpus="no.yaml"), "corpus no.yaml cannot be read: No such file"),
    "no path": (dict(corpus="json"), "corpus json needs --data.path; --data.path is a file"),
    "no saved path": (dict(corpus="saved"), "--data.path is a folder that save_to_disk"),
    "nothing there": (dict(corpus="json", path="no.jsonl"), "cannot be read: Unable to find"),
    "not saved": (dict(corpus="saved", path="rows"), "corpus saved cannot be read: "),
    "another format": (dict(corpus="parquet", path="rows"), "it holds json, not parquet"),
    "no such column": (
        dict(corpus="json", path="rows", column="body"),
        "has no column body; --data.column is one of text, year",
    ),
    "a column of numbers": (
        dict(corpus="json", path="rows", column="year"),
        "row 0 has no text in column year, but 1790",
    ),
    "a broken file": (dict(corpus="json", path="broken.jsonl"), "corpus json cannot be read: "),
    "odd splits": (dict(corpus="saved", path="odd"), "has the splits one, two, but none is train"),
    "a copy that is a file": (dict(corpus="lm1b", path="broken.jsonl"), "is no directory"),
    "a copy without the split": (dict(corpus="lm1b", path="copy"), "cannot be read: "),
    "the hub without network": (
        dict(corpus="lm1b"),
        "Couldn't reach 'dvruette/lm1b' on the Hub (OfflineModeIsEnabled); connect to the network, "
        "or name a folder",
    ),
    "a column of addresses": (dict(column="text"), "corpus sotu has no --data.column"),
    "a stream of addresses": (dict(streaming=True), "corpus sotu is not streamed"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_line_that_says_what_to_do(tmp_path, monkeypatch, mistake):
    monkeypatch.chdir(tmp_path)
    rows = datasets.Dataset.from_dict({"text": ["a"] * 40, "year": [1790] * 40})
    write(rows, tmp_path / "rows/train.jsonl")
    write(rows, tmp_path / "copy/train.parquet")
    (tmp_path / "broken.jsonl").write_text('{"text": "a"}\n{"text"')
    datasets.DatasetDict({"one": rows, "two": rows}).save_to_disk("odd")
    options, message = MISTAKES[mistake]
    with pytest.raises(UsageError) as caught:
        load_data(DataOptions(**{"length": 8, **options}))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_network_a_run_ends_with_one_line(stub_parts, tmp_path, capsys):
    words = ["run", "--process=first", "--backbone=small", "--data.corpus=ag-news"]
    words += [f"--output={tmp_path / 'run'}", "--track.aim=false"]
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert "--data.path" in said.err
    assert not (tmp_path / "run").exists()


def test_a_changed_file_has_another_fingerprint(tmp_path):
    file = write(numbered(40), tmp_path / "a.jsonl")
    first = corpus("json", file).fingerprint()
    assert corpus("json", file).fingerprint() == first
    assert corpus("json", file, column="body").fingerprint() != first
    write(numbered(41), file)
    assert corpus("json", file).fingerprint() != first


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("limit", [local_files.DIGESTED_BYTES, 0])
def test_a_file_replaced_with_the_same_times_is_read_again(tmp_path, format, limit, monkeypatch):
    """As `rsync -t` and `cp -p` do it, with the same size and with another."""
    monkeypatch.setattr(local_files, "DIGESTED_BYTES", limit)
    file = tmp_path / FORMATS[format]
    seen = []
    for number, word in enumerate(("aaaa", "bbbb", "cccccc")):
        rows = datasets.Dataset.from_dict({"text": [word] * 40})
        new = write(rows, tmp_path / f"new{number}" / file.name)
        written = [new] if new.is_file() else [*new.iterdir()]
        for one in written:
            os.utime(one, ns=(10**18, 10**18))
        if new.is_dir():
            shutil.rmtree(file, ignore_errors=True)
            shutil.copytree(new, file)
        else:
            shutil.copy2(new, file)
        found = corpus(format, file)
        assert set(found.documents("train")) == {word}
        seen.append(found.fingerprint())
    assert len(set(seen)) == 3


def test_a_copy_of_a_file_is_the_same_text(tmp_path):
    file = write(numbered(40), tmp_path / "a.jsonl")
    shutil.copy(file, tmp_path / "b.jsonl")
    assert corpus("json", file).fingerprint() == corpus("json", tmp_path / "b.jsonl").fingerprint()


@pytest.mark.parametrize("name", [n for names in library.ALSO_CALLED.values() for n in names])
def test_every_other_name_of_a_split_is_understood(tmp_path, name):
    split = next(split for split, names in library.ALSO_CALLED.items() if name in names)
    said = {s: name if s == split else s for s in SPLITS}
    for number, one in enumerate(SPLITS):
        write(numbered(3 + number), tmp_path / f"files/{said[one]}.jsonl")
    saved = {said[one]: numbered(3 + number) for number, one in enumerate(SPLITS)}
    datasets.DatasetDict(saved).save_to_disk(tmp_path / "saved")
    for format, folder in (("json", "files"), ("saved", "saved")):
        found = [len(texts(format, tmp_path / folder, one)) for one in SPLITS]
        assert found == [3, 4, 5], format


def parquet_with(kind, text):
    """A Parquet file with a column of audio or images that nobody can decode."""
    described = {"media": {"_type": kind}, "text": {"dtype": "string", "_type": "Value"}}
    column = pa.array(
        [{"bytes": b"no media", "path": "a"}] * len(text),
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    about = {b"huggingface": json.dumps({"info": {"features": described}}).encode()}
    return pa.table({"media": column, "text": text}).replace_schema_metadata(about)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", ["Audio", "Image"])
@pytest.mark.parametrize("format", ["parquet", "saved"])
def test_only_the_column_of_the_text_is_decoded(tmp_path, kind, format, streaming):
    file = tmp_path / "all.parquet"
    pq.write_table(parquet_with(kind, [f"document {i}" for i in range(40)]), file)
    if format == "saved":
        datasets.load_dataset("parquet", data_files=str(file)).save_to_disk(tmp_path / "saved")
        file = tmp_path / "saved"
    found = corpus(format, file, streaming=streaming)
    assert len(list(found.documents("train"))) == 36
    cursor = found.cursor("train")
    first, place = cursor.take(5), cursor.position()
    second = found.cursor("train")
    second.restore(place)
    assert [*first, *second.take(100)] == list(found.documents("train"))


UNREADABLE = {
    "latin.jsonl": "latin.jsonl, line 8: byte 0xe9",
    "broken.jsonl": "broken.jsonl, line 8: no JSON",
    "bytes.parquet": "bytes.parquet, row 7: byte 0xe9",
    "torn.parquet": "torn.parquet, row 0: ",
    "scripts": "Dataset scripts are no longer supported",
    "torn_zip": "not a zip file",
    "empty": "contain any data files",
}


def write_unreadable(folder):
    rows = [f"document {i}".encode() for i in range(40)]
    rows[7] = b"caf\xe9"
    lines = [b'{"text": "%s"}\n' % row for row in rows]
    (folder / "latin.jsonl").write_bytes(b"".join(lines))
    (folder / "broken.jsonl").write_bytes(b"".join([*lines[:7], b'{"text": \n', *lines[8:]]))
    array = pa.array(rows, pa.binary())
    text = pa.StringArray.from_buffers(len(array), *array.buffers()[1:])
    pq.write_table(pa.table({"text": text}), folder / "bytes.parquet")
    (folder / "torn.parquet").write_bytes((folder / "bytes.parquet").read_bytes()[:200])
    for name in ("scripts", "torn_zip", "empty"):
        (folder / name).mkdir()
    (folder / "scripts/scripts.py").write_text("raise SystemExit('ran')")
    (folder / "torn_zip/a.zip").write_bytes(b"PK nothing")


def read_all(format, file, streaming):
    found = corpus(format, file, streaming=streaming)
    return found.cursor("train").take(100) if streaming else list(found.documents("train"))


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("name", UNREADABLE)
def test_rows_that_cannot_be_read_are_one_line_with_file_and_row(tmp_path, name, streaming):
    write_unreadable(tmp_path)
    format = "parquet" if name.endswith("parquet") else "json"
    with pytest.raises(UsageError) as caught:
        read_all(format, tmp_path / name, streaming)
    assert UNREADABLE[name] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_zip_file_beside_others_is_left_alone(tmp_path):
    write(numbered(40), tmp_path / "train.jsonl")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("b.jsonl", '{"text": "zipped"}')
    assert len(texts("json", tmp_path, "train")) == 36


@pytest.mark.parametrize("number", [1, 8, 9, 10, 19, 20])
def test_too_few_documents_to_hold_some_out_are_said_to_be_too_few(tmp_path, number):
    file = write(numbered(number), tmp_path / "a.jsonl")
    options = DataOptions(corpus="json", path=str(file), length=8)
    for split, needed in (("validation", 10), ("test", 20)):
        if number >= needed:
            assert len(load_data(options, splits=(split,)).split(split))
            continue
        message = f"0 tokens in its {split} split.*its {split} text is document {needed} of every"
        with pytest.raises(UsageError, match=message):
            load_data(options, splits=(split,))
    assert len(load_data(options, splits=("train",)).split("train"))


def test_only_the_splits_asked_for_are_read(tmp_path):
    write(numbered(40), tmp_path / "test.parquet")
    options = DataOptions(corpus="lambada", path=str(tmp_path), length=16)
    data = load_data(options, splits=("test",))
    assert list(data.splits) == ["test"]
    assert data.fingerprint == load_data(options).fingerprint
    with pytest.raises(UsageError, match="corpus lambada has no train text, only validation, test"):
        load_data(options, splits=("train", "test"))


def test_the_entries_are_those_that_the_help_names():
    for name in installed().names("corpus"):
        assert name.replace("yml", "yaml") in str(DataOptions.__doc__)
    assert {*names(), "sotu", "text", "json"} <= set(installed().names("corpus"))


def test_library_corpora_have_the_rule_of_text_files():
    assert library.PERIOD == 20
    assert dict(library.HELD_OUT) == {"validation": 9, "test": 19}
