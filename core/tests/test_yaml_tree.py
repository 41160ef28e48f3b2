"""The one reader of YAML: plain values, or one line."""

import random
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_core.errors import UsageError
from platform_core.record.yaml_tree import parse_tree, read_tree, tree_text, word_value

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.sampled_from(["null", "~", "yes", "1e-3", "08", "0100", "1:30", "# a", "<<", "2024-01-01"])
)
KEYS = st.text(st.characters(exclude_categories=["Cs"]))
TREES = st.recursive(LEAVES, lambda t: st.lists(t) | st.dictionaries(KEYS, t), max_leaves=20)


@given(TREES)
def test_what_is_written_is_read(tree):
    assert parse_tree(tree_text(tree), "a file") == tree


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0100", 100),
        ("08", 8),
        ("-7", -7),
        ("1e3", 1000.0),
        ("1e-3", 0.001),
        (".5", 0.5),
        ("-.inf", -float("inf")),
        ("1:30", "1:30"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("yes", "yes"),
        ("off", "off"),
        ("2024-01-01", "2024-01-01"),
        ("True", True),
        ("~", None),
        ("", None),
        ("'null'", "null"),
        ("a: &x {b: 1}\nc: {<<: *x, d: 2}", {"a": {"b": 1}, "c": {"b": 1, "d": 2}}),
        ("\ufeffa: 1", {"a": 1}),
    ],
)
def test_words_mean_what_they_look_like(text, value, tmp_path):
    file = tmp_path / "f.yaml"
    file.write_text(text, encoding="utf-8")
    assert read_tree(file, "file") == value


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3", "line 3: 'a' is given twice"),
        ("1: 2", "line 1: the key 1 is no text"),
        ("? [a]\n: 1", "the key ['a'] is no text"),
        ("? {a: 1}\n: 1", "is no text"),
        ("!!int ''", "'' is no int"),
        ("!!float x", "'x' is no float"),
        ("!!timestamp 2024-13-45", "the tag 'tag:yaml.org,2002:timestamp' is not read"),
        ("!!set {a}", "is not read"),
        ("!!python/object/apply:os.system [ls]", "is not read"),
        ('"\\U00110000"', "is not YAML"),
        ('"\\ud800"', "surrogates not allowed"),
        ("[" * 3000, "nests deeper than 50 levels"),
        ("{a: " * 3000, "nests deeper than 50 levels"),
        ("- " * 5000 + "x", "nests deeper than 50 levels"),
        ("a: &a [*a]", "it holds itself"),
        ("train: &a {steps: *a}", "it holds itself"),
        ("9" * 5000, "a number of 5000 digits is too large"),
        ("a: [1", "line 1"),
        ("a: *b", "undefined alias"),
        ("--- 1\n--- 2", "but found another document"),
        ("\x00", "special characters are not allowed"),
        ("x: {<<: 1}", "<< takes mappings"),
        ("\n".join(["a0: &a0 [x]"] + [f"a{i}: &a{i} [{f'*a{i - 1},' * 9}]" for i in range(1, 12)]),
         "more than 100,000 values"),
    ],
)  # fmt: skip
def test_everything_else_is_refused_in_one_line(text, said):
    with pytest.raises(UsageError) as refused:
        parse_tree(text, "file f.yaml")
    message = str(refused.value)
    assert said in message
    assert message.startswith(("file f.yaml is not YAML: ", "file f.yaml: line "))
    assert "\n" not in message
    assert len(message) < 300


def test_a_file_that_is_no_config_is_refused(tmp_path):
    large, other = tmp_path / "large", tmp_path / "other"
    large.write_bytes(b"a" * (2**21 + 1))
    other.write_bytes(b"\xff\xfea")
    for path, said in ((large, "larger than 2 MB"), (other, "not UTF-8"), (tmp_path, "directory")):
        with pytest.raises(UsageError, match=said):
            read_tree(path, "file")


def test_any_bytes_are_values_or_one_line():
    """3,000 files of letters that mean something to YAML."""
    chance = random.Random(0)
    letters = "abz019:{}[],&*!|>'\"%@`#-?~<. \n\t\\uU\x1b\u2028é"
    for _ in range(3000):
        text = "".join(chance.choices(letters, k=chance.randrange(1, 40)))
        assert "\n" not in said_of(text), text


def said_of(text):
    try:
        parse_tree(text, "file")
    except UsageError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("1:30", "1:30"),
        ("0100", 100),
        ("nan", "nan"),
        (".nan", None),
        ("null", None),
        ("[1]", "[1]"),
    ],
)
def test_words_of_a_command_line(word, value):
    found = word_value(word)
    assert found == value or (found != found and word == ".nan")


def test_it_needs_no_more_stack_than_there_is():
    before = sys.getrecursionlimit()
    with pytest.raises(UsageError):
        parse_tree("[" * 100_000, "file")
    assert sys.getrecursionlimit() == before
