"""Cards and `platform compare`: what may stand in one column, and tables in every format."""

import copy
import csv
import io
import json
import math
from dataclasses import replace

import pytest
from swept import compared, measured_alike

from platform_core.composition.options import DataOptions, EvaluateOptions
from platform_core.data.sequences import load_data
from platform_core.errors import UsageError
from platform_core.evaluation.bound import Bound
from platform_core.evaluation.card import bound_facts, bound_kind, tokenizer_card
from platform_core.record.bounds import BOUNDS
from platform_core.record.cards import (
    BEHIND,
    RESULT,
    UNSAID,
    Card,
    Measurement,
    Record,
    find_metric,
    latest,
)
from platform_core.record.directory import RunDirectory
from platform_core.record.results import measurements
from platform_core.registry.loading import find_plugins
from platform_core.testing.records import LN2, bound, result, write_run
from platform_report.tables import FORMATS, Column, Nothing, Number, Probability, Table, Words

METRICS = find_plugins({}).metrics()
BITS, PERPLEXITY = METRICS["bits_per_character"], METRICS["perplexity"]


def measured(record, run="here"):
    return Measurement(run, "one", Record.read(record))


@pytest.fixture
def two(tmp_path, monkeypatch):
    """Two runs that were measured alike; their directories."""
    monkeypatch.chdir(tmp_path)
    return measured_alike(tmp_path)


# What a value depends on

PER_TOKEN = {
    "fingerprint": "9" * 64,
    "unknown_tokens": 3,
    "sequences": 5,
    "evaluate__split": "test",
    "evaluate__protocol": "published",
    "evaluate__weights": "raw",
    "label": "century",
    "conditional": True,
}


@pytest.mark.parametrize("place", PER_TOKEN)
def test_figures_of_a_token_need_the_same(place):
    other = measured(bound(1.0, **{place: PER_TOKEN[place]}))
    key = place.replace("__", ".")
    assert list(PERPLEXITY.differences(other, measured(bound(1.0)))) == [key]


@pytest.mark.parametrize("place", ["seed", "step", "precision", "noise_levels_per_sequence"])
def test_what_is_only_worth_a_note_is_no_difference(place):
    other = measured(bound(1.0, **{place: 7}))
    for metric in (PERPLEXITY, BITS):
        assert not metric.differences(other, measured(bound(1.0)))


def test_a_digest_that_differs_is_told_by_the_options_behind_it():
    longer = measured(bound(1.0, fingerprint="9" * 64, data__length=256))
    assert PERPLEXITY.differences(longer, measured(bound(1.0))) == {"data.length": (256, 128)}
    elsewhere = measured(bound(1.0, text="9" * 64, data__path="my.txt"))
    assert BITS.differences(elsewhere, measured(bound(1.0))) == {"data.path": ("my.txt", None)}


ANY = {
    **PER_TOKEN,
    "text": "9" * 64,
    "data__path": "my.txt",
    "data__corpus": "text",
    "data__length": 64,
    "data__packing": "padded",
    "tokenizer__digest": "8" * 64,
    "evaluate__sequences": 4,
    "characters": 3,
}


def without(record, place):
    """A copy of a record whose card lacks one fact."""
    card = copy.deepcopy(record["card"])
    *holders, key = place.replace("__", ".").split(".")
    holder = card
    for name in holders:
        holder = holder[name]
    holder.pop(key, None)
    return {**record, "card": card}


def every_unlike_record():
    """Records that differ in one fact from the usual one, or lack one, with what it is."""
    for place, value in ANY.items():
        yield place.replace("__", "."), bound(1.0, **{place: value})
        yield place.replace("__", "."), without(bound(1.0), place)


@pytest.mark.parametrize("metric", BOUNDS, ids=lambda metric: metric.name)
def test_two_numbers_share_a_column_exactly_where_no_difference_is_told(metric):
    """Over every pair of records that differ in one fact, or lack one."""
    records = [bound(1.0), *(record for _, record in every_unlike_record())]
    for number, one in enumerate(records):
        for place, other in enumerate(records):
            pair = measured(one, f"run{number}"), measured(other, f"run{place}")
            if number == place:
                continue
            told, back = metric.differences(*pair), metric.differences(*reversed(pair))
            assert set(told) == set(back)
            assert (metric.setting(pair[0]) == metric.setting(pair[1])) == (not told)
            assert all(one != other or UNSAID in (one, other) for one, other in told.values())


@pytest.mark.parametrize("metric", BOUNDS, ids=lambda metric: metric.name)
@pytest.mark.parametrize("path", [None, "my.txt"])
def test_another_text_is_told_whatever_else_differs(metric, path):
    """Its digest, or the options behind it; a replaced file has the same options."""
    digests = {"text": "7" * 64, "fingerprint": "6" * 64}
    source = {"data__path": path} if path else {}
    expected = "data.path" if path else "text"
    for place, value in ANY.items():
        if place.startswith(("data__path", "data__corpus", "text", "fingerprint")):
            continue
        mine = measured(bound(1.0, **{place: value}), "a")
        other = measured(bound(1.0, **digests, **source), "b")
        assert expected in metric.differences(mine, other), place


def test_the_same_text_in_another_place_is_the_same_text():
    moved = measured(bound(1.0, data__path="moved.txt", fingerprint="9" * 64, data__length=64))
    assert set(PERPLEXITY.differences(moved, measured(bound(1.0)))) == {"data.length"}
    assert not BITS.differences(moved, measured(bound(1.0)))


def test_advice_that_was_followed_is_not_given_again(two, capsys):
    """A run whose first card says too little was measured again, with another split."""
    again = {"again": bound(1.2, evaluate__split="test")}
    write_run(two / "c", without(result(1.2), "text"), evaluations=again)
    for runs in (("a", "c"), ("c", "a")):
        code, _, said = compared(*runs, "--metric=bits_per_character", capsys=capsys)
        assert code == 2
        assert "evaluate.split" in said
        assert "measure again" not in said


def test_bits_per_character_of_a_whole_split_do_not_depend_on_how_it_is_cut():
    pieces = {"fingerprint": "9" * 64, "tokenizer__digest": "8" * 64, "data__length": 64}
    mine, other = measured(bound(1.0)), measured(bound(1.0, sequences=3, **pieces))
    assert not BITS.differences(other, mine)
    assert set(PERPLEXITY.differences(other, mine)) == {
        "tokenizer.digest",
        "data.length",
        "sequences",
    }


def test_bits_per_character_of_a_part_depend_on_how_it_is_cut():
    part = {"evaluate__sequences": 4, "fingerprint": "9" * 64, "data__length": 64}
    mine = measured(bound(1.0, evaluate__sequences=4))
    assert set(BITS.differences(measured(bound(1.0, **part)), mine)) == {"data.length"}
    whole = measured(bound(1.0))
    assert set(BITS.differences(mine, whole)) == {"evaluate.sequences"}


def test_bits_per_character_need_as_many_characters():
    other = measured({**bound(1.0), "characters": 639})
    assert BITS.differences(other, measured(bound(1.0))) == {"characters": (639, 640)}


def test_what_one_card_does_not_say_is_a_difference():
    silent = bound(1.0)
    del silent["card"]["conditional"]
    found = PERPLEXITY.differences(measured(silent), measured(bound(1.0)))
    assert found == {"conditional": ("not said", False)}


# Numbers


def test_the_error_of_a_result_is_read_in_nats(two):
    (end,) = measurements(RunDirectory(two / "a"), "a")
    assert end.name == RESULT
    assert METRICS["nats_per_token"].error(end) == pytest.approx(0.03)


@pytest.mark.parametrize("unknown", [{"error": None}, {"error": 0.0, "sequences": 1}])
def test_one_sequence_has_no_error(unknown, tmp_path):
    record = result(1.0, unknown["error"])
    if "sequences" in unknown:
        record["sequences"] = record["card"]["sequences"] = 1
    write_run(tmp_path / "one", record)
    (end,) = measurements(RunDirectory(tmp_path / "one"), "one")
    assert [metric.error(end) for metric in METRICS.values()] == [None] * len(METRICS)


def test_of_many_the_last_step_counts_and_then_the_least_error():
    early = measured(bound(1.0, 0.001, step=100))
    rough, fine = measured(bound(1.1, 0.02)), measured(bound(1.2, 0.01))
    assert latest([early, fine, rough]) is fine
    assert latest([early, rough]) is rough


def test_a_metric_is_found_by_its_name():
    with pytest.raises(UsageError, match="unknown metric perplexty; did you mean perplexity"):
        find_metric("perplexty", METRICS)


# The command


def test_the_difference_to_the_first_run_has_the_error_of_both(two, capsys):
    code, out, _ = compared("a", "b", "--format", "json", capsys=capsys)
    assert code == 0
    (table,) = json.loads(out)
    first, second = table["rows"]
    bits = "bits per character"
    assert first[bits]["value"] == pytest.approx(2 / LN2)
    assert first[bits]["spread"] == pytest.approx(0.06 / LN2)
    assert first[f"Δ {bits}"]["value"] is None
    assert second[f"Δ {bits}"]["value"] == pytest.approx(0.4 / LN2)
    # 3, 4, 5.
    assert second[f"Δ {bits}"]["spread"] == pytest.approx(0.1 / LN2)
    assert second["perplexity per token"]["value"] == pytest.approx(math.exp(1.2))
    assert "seed: 1 in a; 2 in b" in table["remarks"]
    assert "independent" in table["remarks"][0]


def test_unlike_runs_are_refused_with_the_keys_and_what_to_do(two, capsys):
    write_run(two / "c", result(1.0, evaluate__protocol="published"))
    code, out, err = compared("a", "b", "c", capsys=capsys)
    assert (code, out) == (2, "")
    assert err == (
        "platform compare: error: bits_per_character of c does not belong in one column with a: "
        "evaluate.protocol published (a: exact); `platform eval c --evaluate.protocol exact` "
        "measures it alike, and --mark shows them with a mark\n"
    )


def test_unlike_tokens_leave_bits_per_character(two, capsys):
    write_run(two / "bpe", result(2.0, fingerprint="9" * 64, tokenizer__digest="8" * 64))
    code, out, _ = compared("a", "bpe", capsys=capsys)
    assert code == 0
    assert "No perplexity per token: its numbers are unlike in tokenizer.digest." in out
    code, _, err = compared("a", "bpe", "--metric", "perplexity", capsys=capsys)
    assert code == 2
    assert "--metric bits_per_character does not depend on it" in err
    code, _, err = compared(
        *("a", "bpe", "--metric", "bits_per_character", "--metric", "perplexity"), capsys=capsys
    )
    assert code == 2
    assert "tokenizer.digest 88888888… (a: 22222222…)" in err


def test_marks_name_what_differs(two, capsys):
    write_run(two / "c", result(1.0, evaluate__protocol="published", evaluate__weights="raw"))
    code, out, _ = compared("a", "b", "c", "--mark", capsys=capsys)
    assert code == 0
    lines = out.splitlines()
    assert [line.count("[a]") for line in lines if line[:2] in ("a ", "b ", "c ")] == [0, 0, 1]
    assert any(
        line.startswith("[a] bits per character: evaluate.protocol published (a: exact), ")
        for line in lines
    )


def test_an_exact_value_beside_bounds_is_marked(two, capsys):
    write_run(two / "ar", result(0.9, noise_levels_per_sequence=0))
    _, out, _ = compared("a", "ar", capsys=capsys)
    assert "[a] the value itself" in out
    _, out, _ = compared("a", "b", capsys=capsys)
    assert "the value itself" not in out


def test_an_evaluation_that_both_have_is_enough(two, capsys):
    write_run(
        two / "c",
        result(1.0, evaluate__protocol="published"),
        evaluations={"validation-ema-exact": bound(1.1)},
    )
    write_run(two / "d", result(1.0), evaluations={"test": bound(3.0, evaluate__split="test")})
    code, out, _ = compared("a", "c", "d", "--format", "csv", capsys=capsys)
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["run"] for row in rows] == ["a", "c", "d"]
    assert float(rows[1]["bits per character"]) == pytest.approx(2.2 / LN2)


def test_every_setting_that_all_share_has_its_table(two, capsys):
    for name in ("c", "d"):
        more = {"test-ema-exact": bound(3.0, evaluate__split="test")}
        write_run(two / name, result(1.0), evaluations=more)
    _, out, _ = compared("c", "d", capsys=capsys)
    assert "sotu, validation text: exact protocol, ema weights" in out
    assert "sotu, test text: exact protocol, ema weights" in out


def test_what_no_card_says_is_told(two, capsys):
    for name in ("c", "d"):
        silent = result(1.0)
        del silent["card"]["text"]
        write_run(two / name, silent)
    code, out, err = compared("c", "d", capsys=capsys)
    assert (code, out) == (2, "")
    assert err == (
        "platform compare: error: bits_per_character of d does not belong in one column with c: "
        "text not said (c: not said); the cards of c, d do not say text; measure again with "
        "`platform eval RUN`; --mark shows them with a mark\n"
    )
    code, out, _ = compared("c", "d", "--mark", capsys=capsys)
    assert code == 0
    assert "[a] bits per character: text not said (c: not said)" in out
    assert "The cards of c, d do not say text; measure again with `platform eval RUN`." in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a"], "give at least two runs"),
        (["a", "a/"], "give at least two runs"),
        (["a", "nowhere"], "nowhere does not exist"),
        (["a", "empty"], "empty has no bits_per_character; measure it with `platform eval empty`"),
        (["a", "b", "--format", "xls"], "invalid choice: 'xls'"),
    ],
)
def test_mistakes_are_told_in_one_line(words, message, two, capsys):
    write_run(two / "empty")
    code, _, err = compared(*words, capsys=capsys)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


def test_a_file_is_written_instead(two, capsys):
    code, out, _ = compared(
        *("a", "b", "--format", "markdown", "--to", "tables/t.md"), capsys=capsys
    )
    assert (code, out) == (0, "")
    assert (two / "tables/t.md").read_text().startswith("**sotu, validation text")


# Tables

HARD = r"a_b & 50% $x$ #1 {z} ~ ^ \n <i>|</i>"


def table(*cells, columns=None, **more):
    heads = columns or (Column("what", number=False), Column("bits", "standard error"))
    return Table(more.pop("title", ""), heads, cells, more.pop("notes", {}), **more)


def test_numbers_are_rounded_to_two_digits_of_the_middle_error():
    rows = [(Words("a"), Number(1.23456, 0.0123)), (Words("b"), Number(12.5, 0.4))]
    assert table(*rows).texts() == [["a", "1.23 ± 0.01"], ["b", "12.50 ± 0.40"]]
    rows[1] = (Words("b"), Number(12.5, 0.011))
    assert table(*rows).texts() == [["a", "1.235 ± 0.012"], ["b", "12.500 ± 0.011"]]


def test_numbers_without_errors_have_four_digits_and_whole_ones_none():
    rows = [(Words("a"), Number(1234.56)), (Words("b"), Number(7)), (Words("c"), Nothing())]
    assert [row[1] for row in table(*rows).texts()] == ["1235", "7", "–"]
    assert Number(math.inf).text(2) == "inf"
    assert [Probability(p).text(3) for p in (0.04321, 1.0, 1e-9)] == ["0.043", "1", "< 0.0001"]


def test_latex_escapes_what_users_write():
    text = FORMATS["latex"](table((Words(HARD), Number(1.0, 0.1, ("a",))), notes={"a": "50%"}))
    assert (
        r"a\_b \& 50\% \$x\$ \#1 \{z\} \textasciitilde{} \textasciicircum{} \textbackslash{}n "
        r"\textless{}i\textgreater{}\textbar{}\textless{}/i\textgreater{} & "
        r"1.00 $\pm$ 0.10\textsuperscript{a} \\"
    ) in text
    assert r"{\footnotesize [a] 50\%}" in text
    assert r"\begin{tabular}{lr}" in text
    assert text.index(r"\toprule") < text.index(r"\midrule") < text.index(r"\bottomrule")


def test_latex_says_what_it_needs_and_fits_the_page():
    lines = FORMATS["latex"](table((Words("x"), Number(1.0)))).splitlines()
    assert lines[0] == r"% needs \usepackage{booktabs,adjustbox}"
    begin = lines.index(r"\begin{adjustbox}{max width=\linewidth}")
    assert lines[begin + 1].startswith(r"\begin{tabular}")
    assert lines.index(r"\end{adjustbox}") == lines.index(r"\end{tabular}") + 1


def test_a_row_of_latex_does_not_begin_with_an_option():
    assert "\n{}[x] & " in FORMATS["latex"](table((Words("[x]"), Number(1.0))))


def test_csv_keeps_every_digit_and_what_users_write():
    rows = [(Words('a, "b"\nc'), Number(1 / 3, 0.01, ("a",))), (Words("d"), Nothing())]
    text = FORMATS["csv"](table(*rows, notes={"a": "why, indeed"}))
    assert list(csv.reader(io.StringIO(text))) == [
        ["what", "bits", "bits: standard error", "notes"],
        ['a, "b"\nc', "0.3333333333333333", "0.01", "why, indeed"],
        ["d", "", "", ""],
    ]


def test_markdown_and_html_escape_what_users_write():
    tables = table((Words(HARD, link='x"y'), Number(1.0)), title="<T>", remarks=("a < b",))
    markdown = FORMATS["markdown"](tables)
    assert r"| a\_b & 50% $x$ #1 {z} \~ ^ \\n \<i\>\|\</i\> | 1.000 |" in markdown
    page = FORMATS["html"](tables)
    assert '<a href="x&#34;y">a_b &amp; 50% $x$ #1 {z} ~ ^ \\n &lt;i&gt;|&lt;/i&gt;</a>' in page
    assert "<caption>&lt;T&gt;</caption>" in page
    assert "a &lt; b" in page


def test_columns_of_text_are_aligned():
    text = FORMATS["text"](table((Words("long word"), Number(1)), (Words("b"), Number(1000))))
    assert text.splitlines() == [
        "what        bits",
        "---------  -----",
        "long word      1",
        "b          1,000",
    ]


# Cards that are made


def of_text(bound, text, data):
    card = Card.made(
        bound_kind(bound),
        step=3,
        parts={},
        seed=1,
        tokenizer=tokenizer_card(data.tokenizer),
        units="",
        machine={},
        facts=bound_facts(bound, EvaluateOptions(split="train"), text, data),
    )
    return Measurement("run", str(text.length), Record(bound.summary(), card))


def test_cards_of_bounds_say_all_that_bounds_depend_on(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "some.txt").write_text("A house is a house. " * 40)
    text = DataOptions(corpus="text", path=str(tmp_path / "some.txt"), length=8)
    data = load_data(text)
    number = Bound(1.0, 0.1, 80, 70, 10)
    record = of_text(number, text, data)
    for metric in BOUNDS:
        for key in (*metric.facts(record), *BEHIND["fingerprint"]):
            assert record.fact(key) != UNSAID, key
    longer = replace(text, length=16)
    apart = of_text(number, longer, load_data(longer))
    assert not BITS.differences(record, apart)
    assert PERPLEXITY.differences(record, apart) == {"data.length": (8, 16)}


# Tasks
