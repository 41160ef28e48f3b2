"""Files of torch.save are read, and nothing that they say is done."""

import collections
import io
import os
import pickle
import struct
import subprocess
import time
import zipfile
from pathlib import Path

import pytest
import torch

from platform_published import pickles as foreign
from platform_published.pickles import ForeignError, Inert, Name, TorchArchive, plain, read_pickle

GOLDEN = Path(__file__).parent / "golden"


class Call:
    """Pickles as a call of anything with anything."""

    def __init__(self, called, *arguments):
        self.reduced = called, arguments

    def __reduce__(self):
        return self.reduced


class Plainly:
    """Pickles as an object with a state."""

    def __init__(self, **state):
        self.__dict__.update(state)


def read(value, protocol=2):
    return read_pickle(pickle.dumps(value, protocol), {}, source="x")


def archive(path, pickled, storages=None, *, extra=(), compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("archive/data.pkl", pickled)
        file.writestr("archive/byteorder", "little")
        for key, content in (storages or {}).items():
            file.writestr(f"archive/data/{key}", content)
        for name, content in extra:
            file.writestr(name, content)
    return path


def tensor_pickle(*, offset=0, size=(2, 3), stride=(3, 1), key="0", numel=6, kind="FloatStorage"):
    """What torch.save writes for one tensor, with any numbers."""

    class Writer(pickle.Pickler):
        def persistent_id(self, value):
            if value == "the storage":
                return ("storage", getattr(torch, kind), key, "cpu", numel)
            return None

    stream = io.BytesIO()
    rebuilt = torch._utils._rebuild_tensor_v2
    Writer(stream, 2).dump(Call(rebuilt, "the storage", offset, size, stride, False, {}))
    return stream.getvalue()


NUMBERS = torch.arange(6, dtype=torch.float32)
SIX = {"0": NUMBERS.numpy().tobytes()}


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_plain_data_are_read_as_they_were(protocol):
    value = {
        "a": [1, -2, 2**70, 1.5, None, True, False, "text ä", (), (1,), (1, 2), (1, 2, 3, 4)],
        ("b", 3): {"inner": [[], {}]},
    }
    assert read(value, protocol) == value


def test_shared_parts_stay_shared_and_cycles_are_read():
    shared = [1]
    cycle = [shared, shared]
    cycle.append(cycle)
    found = read(cycle)
    assert found[0] is found[1]
    assert found[2] is found
    with pytest.raises(ForeignError, match="nested too deeply"):
        plain(found)


@pytest.mark.parametrize(
    "dtype",
    [
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
        torch.bool,
    ],
)
def test_tensors_are_read_as_torch_reads_them(dtype, tmp_path):
    whole = torch.arange(24).reshape(2, 3, 4).to(dtype)
    saved = {
        "whole": whole,
        "turned": whole.transpose(0, 2),
        "part": whole[1, 1:, ::2],
        "scalar": whole[1, 1, 1],
        "empty": whole[:0],
        "parameter": torch.nn.Parameter(whole, requires_grad=False),
    }
    torch.save(saved, tmp_path / "x.pt")
    with TorchArchive(tmp_path / "x.pt") as file:
        for name, expected in torch.load(tmp_path / "x.pt").items():
            found = file.read(file.content[name])
            assert found.dtype == dtype
            assert found.is_contiguous()
            assert torch.equal(found, expected)


@pytest.mark.parametrize("name", ["s_duo", "s_mdlm", "s_ar"])
def test_published_checkpoints_are_read_as_torch_reads_them(name):
    with TorchArchive(GOLDEN / f"{name}.ckpt") as file:
        config = plain(file.content["hyper_parameters"]["config"])
        assert config["algo"]["name"] == name.removeprefix("s_")
        assert config["model"]["hidden_size"] == 16
        assert config["callbacks"]["checkpoint_monitor"]["save_last"] is False
        assert file.content["ema"]["num_updates"] == 5
        assert len(file.content["ema"]["shadow_params"]) in (20, 30)


@pytest.fixture
def marker(tmp_path, monkeypatch):
    """A file that nothing may make, with the usual ways to make it watched."""
    called = []
    for module, name in (
        (os, "system"),
        (os, "popen"),
        (os, "execv"),
        (subprocess, "Popen"),
        (subprocess, "call"),
    ):
        monkeypatch.setattr(module, name, lambda *arguments, **_: called.append(arguments))
    yield tmp_path / "marker"
    assert called == []
    assert not (tmp_path / "marker").exists()


def call(name, text):
    """name(text) in the oldest protocol."""
    module, _, function = name.rpartition(".")
    return f"c{module}\n{function}\n(S'{text}'\ntR"


MALICIOUS = {
    "system": lambda f: call("os.system", f"touch {f}") + ".",
    "posix": lambda f: call("posix.system", f"touch {f}") + ".",
    "eval": lambda f: call("builtins.eval", f'open("{f}", "w")') + ".",
    "exec": lambda f: call("__builtin__.exec", f'open("{f}", "w")') + ".",
    "open": lambda f: f"cio\nopen\n(S'{f}'\nS'w'\ntR.",
    "importlib": lambda f: call("importlib.import_module", "antigravity") + ".",
    "inst": lambda f: f"(S'touch {f}'\nios\nsystem\n.",
    "obj": lambda f: f"(cos\nsystem\nS'touch {f}'\no.",
    "newobj": lambda f: f"\x80\x02csubprocess\nPopen\n(S'touch {f}'\nt\x81.",
    "newobj_ex": lambda f: f"\x80\x04csubprocess\nPopen\n(S'touch {f}'\nt}}\x92.",
    "getattr chain": lambda f: (
        f"cbuiltins\ngetattr\n({call('builtins.__import__', 'os')}S'system'\ntR(S'touch {f}'\ntR."
    ),
    "nested reduce": lambda f: (
        f"ctorch._utils\n_rebuild_parameter\n({call('os.system', f'touch {f}')}I00\nNtR."
    ),
    "dotted name": lambda f: f"\x80\x04\x8c\x02os\x8c\x0bpath.os.sys\x93(S'touch {f}'\ntR.",
    "state of a dictionary": lambda f: (
        f"\x80\x02ccollections\nOrderedDict\n)R}}S'a'\n{call('os.system', f'touch {f}')}sb."
    ),
    "state of our own class": lambda f: (
        "\x80\x02cplatform_core.foreign\nInert\n)\x81}S'__setstate__'\ncos\nsystem\nsb."
    ),
    "items of an object": lambda f: (
        f"\x80\x02ccollections\ndeque\n)\x81({call('os.system', f'touch {f}')}e."
    ),
}


@pytest.mark.parametrize("name", MALICIOUS)
def test_nothing_is_executed(name, marker):
    found = read_pickle(MALICIOUS[name](marker).encode("latin1"), {}, source="x")
    assert isinstance(found, Inert | dict)


def test_what_would_be_called_is_kept_by_name(marker):
    found = read_pickle(MALICIOUS["system"](marker).encode(), {}, source="x")
    assert found.called == Name("os", "system")
    assert found.arguments == (f"touch {marker}",)
    assert plain({"x": found}) == {"x": "<os.system>"}


def test_the_machine_has_no_way_to_call_what_it_reads():
    source = Path(foreign.__file__).read_text()
    for word in (
        "import_module",
        "__import__",
        "getattr(",
        "eval(",
        "exec(",
        "torch.load",
        "Unpickler",
    ):
        assert word not in source


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"\x80\x05\x97.", "NEXT_BUFFER"),
        (b"Panything\n.", "PERSID"),
        (b"\x80\x02K\x01Q.", "no storage"),
        (b"\x80\x02(X\x07\x00\x00\x00storageX\x02\x00\x00\x00ostQ.", "no storage"),
        (b"\x80\x02B\xff\xff\xff\x7f", "damaged"),
        (b"\x80\x04\x8e" + struct.pack("<Q", 2**62), "damaged"),
        (b"\x80\x02\x8b\xff\xff\xff\x7f", "damaged"),
        (b"\x80\x02\x8b\x01\x00\x00\x00\x01.", "LONG4"),
        (b"L" + b"9" * 5000 + b"L\n.", "damaged"),
        (b"\x80\x02r\xff\xff\xff\x7f.", "damaged"),
        (b"\x80\x02j\xff\xff\xff\x7f.", "damaged"),
        (b"\x80\x02" + b"(" * 10 + b"t" * 11 + b".", "damaged"),
        (b"\x80\x02]K\x01K\x02s.", "damaged"),
        (b"\x80\x02}K\x01a.", "damaged"),
        (b"\x80\x02K\x01K\x01b.", "damaged"),
        (b"\x80\x02}]K\x01s.", "damaged"),
        (b"\x80\x02}" + b")" + b"\x85" * 100_000 + b"K\x01s.", "damaged"),
        (b"c" + b"a" * 1000 + b"\nb\n.", "damaged"),
        (b"\x80\x02K\x01", "damaged"),
        (b"", "damaged"),
        (b"hello", "damaged"),
        (b".", "damaged"),
    ],
)
def test_what_no_checkpoint_says_is_refused_in_one_line(pickled, message):
    with pytest.raises(ForeignError, match=message) as error:
        read_pickle(pickled, {}, source="x")
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_depth_and_length_are_bounded(monkeypatch):
    deep = read_pickle(b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".", {}, source="x")
    with pytest.raises(ForeignError, match="too deeply"):
        plain(deep)
    monkeypatch.setattr(foreign, "MAX_INSTRUCTIONS", 1000)
    with pytest.raises(ForeignError, match="too long"):
        read_pickle(b"\x80\x02" + b"N0" * 1000 + b"N.", {}, source="x")


def test_a_doubling_memo_takes_no_memory_and_is_not_written_out(monkeypatch):
    layers = [["x"] * 2]
    for _ in range(60):
        layers.append([layers[-1], layers[-1]])
    found = read(layers[-1])
    monkeypatch.setattr(foreign, "MAX_NODES", 10_000)
    with pytest.raises(ForeignError, match="too large"):
        plain(found)


def test_a_tensor_is_read_from_its_storage(tmp_path):
    with TorchArchive(archive(tmp_path / "x.pt", tensor_pickle(), SIX)) as file:
        assert torch.equal(file.read(file.content), NUMBERS.reshape(2, 3))


@pytest.mark.parametrize(
    "wrong",
    [
        {"offset": 1},
        {"offset": -1},
        {"offset": 2**70},
        {"offset": True},
        {"offset": 1.0},
        {"size": (2, 4)},
        {"size": (3, 3)},
        {"size": (-1, 3)},
        {"size": (2**40, 2**40), "stride": (0, 0)},
        {"size": (7,), "stride": (0,)},
        {"size": (2,), "stride": (-1,)},
        {"size": (2,), "stride": (6,)},
        {"size": (2,), "stride": (2**62,)},
        {"size": (2,), "stride": (1, 1)},
        {"size": (1,) * 9, "stride": (1,) * 9},
        {"size": [2, 3]},
        {"size": "23"},
        {"numel": 7},
        {"numel": 5},
        {"numel": -6},
        {"numel": 2**62},
        {"key": "1"},
        {"key": "../data.pkl"},
        {"kind": "DoubleStorage"},
        {"kind": "QInt8Storage"},
    ],
)
def test_a_tensor_outside_its_storage_is_refused(wrong, tmp_path):
    path = archive(tmp_path / "x.pt", tensor_pickle(**wrong), SIX)
    with pytest.raises(ForeignError, match=r"beyond its storage|is said to have|no storage"):
        TorchArchive(path)


def test_many_tensors_of_one_storage_cannot_fill_the_memory(tmp_path):
    path = archive(tmp_path / "x.pt", tensor_pickle(), SIX)
    with TorchArchive(path) as file:
        for _ in range(2 * path.stat().st_size // 24):
            file.read(file.content)
        with pytest.raises(ForeignError, match="the same numbers"):
            file.read(file.content)


def test_paths_in_an_archive_are_names_and_nothing_is_unpacked(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    extra = [("../../outside", b"x"), ("/tmp/platform-outside", b"x"), ("archive/data/../1", b"x")]
    path = archive(inside / "x.pt", tensor_pickle(), SIX, extra=extra)
    with TorchArchive(path) as file:
        file.read(file.content)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["inside", "x.pt"]
    assert not Path("/tmp/platform-outside").exists()


def test_a_compressed_archive_is_refused_before_it_is_unpacked(tmp_path):
    bomb = {"0": b"\0" * 10_000_000}
    pickled = tensor_pickle(numel=2_500_000)
    path = archive(tmp_path / "x.pt", pickled, bomb, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 50_000
    with pytest.raises(ForeignError, match="compressed"):
        TorchArchive(path)


def test_an_archive_that_claims_more_than_its_size_is_refused(tmp_path):
    path = archive(tmp_path / "x.pt", tensor_pickle(), SIX)
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"archive/data/0") - 46
    struct.pack_into("<II", data, entry + 20, 10**6, 10**6)
    path.write_bytes(data)
    with pytest.raises(ForeignError, match="more than its size"):
        TorchArchive(path)


def test_two_parts_of_one_name_are_refused(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate"):
        path = archive(
            tmp_path / "x.pt", tensor_pickle(), SIX, extra=[("archive/data/0", b"another")]
        )
    with pytest.raises(ForeignError, match="not one of torch.save"):
        TorchArchive(path)


def attempt(path):
    """The error of reading everything, or None."""
    try:
        with TorchArchive(path) as file:
            if isinstance(file.content, foreign.Stored):
                file.read(file.content)
    except ForeignError as error:
        return str(error)
    return None


def test_damage_anywhere_is_an_error_of_one_line_or_harmless(tmp_path):
    whole = archive(tmp_path / "x.pt", tensor_pickle(), SIX).read_bytes()
    path = tmp_path / "damaged.pt"
    for place in range(0, len(whole), 3):
        path.write_bytes(whole[:place])
        assert attempt(path).count("\n") == 0
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        assert "\n" not in (attempt(path) or "")


def test_a_flipped_bit_of_the_numbers_is_noticed(tmp_path):
    path = archive(tmp_path / "x.pt", tensor_pickle(), SIX)
    data = path.read_bytes().replace(SIX["0"], bytes([1]) + SIX["0"][1:])
    path.write_bytes(data)
    with TorchArchive(path) as file, pytest.raises(ForeignError, match="damaged"):
        file.read(file.content)


def test_what_torch_wrote_before_zip_archives_is_refused(tmp_path):
    torch.save({"x": NUMBERS}, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(ForeignError, match=r"before 1\.6"):
        TorchArchive(tmp_path / "x.pt")


def test_objects_of_classes_that_are_not_there_show_their_state():
    source = pickle.dumps(Plainly(_content={"a": Plainly(_val=3), "b": [Plainly(_val=None)]}), 2)
    source = source.replace(b"test_foreign", b"not_installed")
    found = read_pickle(source, {}, source="x")
    assert isinstance(found, Inert)
    assert plain(found) == {"a": 3, "b": [None]}


def test_ordered_dictionaries_are_dictionaries_and_others_stay_inert():
    assert read(collections.OrderedDict(a=1)) == {"a": 1}
    assert plain(read({"s": {1, 2}})) == {"s": "<builtins.set>"}


@pytest.mark.parametrize(
    "body",
    [b"\x8f" * 40, b"}" * 40, b"]" * 40, b"N" + b"\x85" * 40],
    ids=["sets", "dictionaries", "lists", "tuples"],
)
def test_a_pickle_makes_no_more_objects_than_are_allowed(body, monkeypatch):
    monkeypatch.setattr(foreign, "MAX_OBJECTS", 30)
    with pytest.raises(ForeignError, match="a pickle of too many objects"):
        read_pickle(b"\x80\x04" + body + b".", {}, source="it")


@pytest.mark.slow
def test_keys_whose_hashes_collide_take_no_longer_than_others():
    number = 100_000
    modulus = 2**61 - 1
    keys = b"".join(
        b"\x8a\x0a" + (modulus * (i + 1)).to_bytes(10, "little") + b"N" for i in range(number)
    )
    start = time.monotonic()
    found = read_pickle(b"\x80\x04}(" + keys + b"u.", {}, source="it")
    assert len(found) == number
    assert time.monotonic() - start < 15
    with pytest.raises(ForeignError, match="its pickle is invalid"):
        read_pickle(b"Np%d\n." % modulus, {}, source="it")
