"""One table of options: what streams and files may ask, as it comes out of JSON and headers."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from nemotron_asr import AsrError
from nemotron_asr.options import FILE, LIVE, PACKET, Options, option_table, parse_options

LANGUAGES = ("en-US", "de-DE", "auto")
LATENCIES_MS = (320, 80)
TABLE = option_table(LANGUAGES, LATENCIES_MS)


def parse(of: str = LIVE, **parameters) -> Options:
    return parse_options(parameters, LANGUAGES, LATENCIES_MS, 320, of)


def refused(of: str = LIVE, **parameters) -> str:
    with pytest.raises(AsrError, match=r"^INVALID_ARGUMENT: ") as caught:
        parse(of, **parameters)
    return str(caught.value)


def test_every_field_is_an_option_and_has_a_valid_default():
    fields = {field.name: field for field in dataclasses.fields(Options)}
    assert fields.keys() == TABLE.keys()
    defaults = parse()
    for name, option in TABLE.items():
        assert getattr(defaults, name) in option.valid
        assert option.of
        assert option.help


@pytest.mark.parametrize(
    ("name", "value", "parsed"),
    [
        ("language", "EN_us", "en-US"),
        ("language", " auto ", "auto"),
        ("latency_ms", 80, 80),
        ("latency_ms", "80", 80),
        ("sample_rate", 8000, 8000),
        ("sample_rate", "44100", 44_100),
        ("channels", "2", 2),
        ("punctuation", False, False),
        ("punctuation", "false", False),
        ("punctuation", "False", False),
        ("capitals", "TRUE", True),
        ("profanity", "mask", "mask"),
        ("profanity", "Keep", "keep"),
        ("languages", "de_de, EN-us,de-DE", "de-DE,en-US"),
        ("languages", ["en-US", "de-DE"], "de-DE,en-US"),
        ("languages", '["en-US", "de-DE"]', "de-DE,en-US"),
        ("languages", "", ""),
        ("phrases", "Quilter; Rocky Ithaca^2", '["Quilter", "Rocky Ithaca^2"]'),
        ("phrases", '["Quilter", "Rocky Ithaca^2"]', '["Quilter", "Rocky Ithaca^2"]'),
        ("phrases", " ", ""),
        ("boost", 2, 2.0),
        ("boost", "0.5", 0.5),
    ],
)
def test_values_as_they_come(name, value, parsed):
    got = getattr(parse(**{name: value}), name)
    assert (got, type(got)) == (parsed, type(parsed))


@pytest.mark.parametrize(("value", "parsed"), [("mix", "mix"), (0, 0), ("1", 1)])
def test_channel_of_a_file(value, parsed):
    assert parse(FILE, channel=value).channel == parsed


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("language", "xx", "language 'xx' is not supported; valid: auto, de-DE, en-US"),
        ("language", None, "language None"),
        ("latency_ms", "fast", "latency_ms 'fast' is not supported; valid: 80, 320"),
        ("latency_ms", 320.0, "latency_ms 320.0"),
        ("latency_ms", True, "latency_ms True"),
        ("sample_rate", 8001, "sample_rate 8001 is not supported; valid: 8000, 11025, 12000"),
        ("channels", 0, "channels 0 is not supported; valid: 1, 2, 3, 4, 5, 6, 7, 8"),
        ("channels", [1], "channels [1]"),
        ("punctuation", "no", "punctuation 'no' is not supported; valid: true, false"),
        ("punctuation", 1, "punctuation 1"),
        ("capitals", "", "capitals ''"),
        ("profanity", True, "profanity True is not supported; valid: keep, mask"),
        ("languages", "en-US,xx", "languages: 'xx' is not supported; valid: some of de-DE, en-US"),
        ("languages", "auto", "languages: 'auto' is not supported"),
        ("languages", 3, "languages: 3 is neither text nor a list of texts"),
        ("phrases", "Quilter^11", "phrases: 'Quilter^11' has no valid weight; valid: at most 1000"),
        ("boost", -1, "boost: -1 is not supported; valid: 0 to 20"),
        ("boost", "much", "boost: 'much'"),
        ("boost", "nan", "boost: 'nan'"),
        ("boost", None, "boost: None"),
    ],
)
def test_bad_values_are_named_with_the_valid_ones(name, value, message):
    assert message in refused(**{name: value})


def test_an_unknown_option_is_named_with_the_known_ones():
    assert (
        "unknown parameter 'langauge'; valid: language, latency_ms, sample_rate, channels, "
        "punctuation, capitals, profanity"
    ) in refused(langauge="en-US")


def test_one_language_of_a_list_is_that_language():
    assert parse(languages="de-DE") == parse(language="de-DE", languages="de-DE")
    assert parse(languages="de-DE").language == "de-DE"
    assert parse(languages="de-DE,en-US").language == "auto"
    assert parse(languages="de-DE,en-US", language="en-US").language == "en-US"


def test_a_language_that_is_not_in_the_list_is_refused():
    assert "language 'en-US' is not among languages 'de-DE'" in refused(
        language="en-US", languages="de-DE"
    )


@pytest.mark.parametrize(
    ("of", "name", "value", "message"),
    [
        (FILE, "sample_rate", 16_000, "parameter 'sample_rate' is not for a file; valid: language"),
        (FILE, "channels", 1, "parameter 'channels' is not for a file"),
        (LIVE, "channel", "mix", "parameter 'channel' is not for a live stream; valid: language"),
    ],
)
def test_options_of_the_other_kind_are_refused(of, name, value, message):
    assert message in refused(of, **{name: value})


def test_the_guide_explains_every_option_for_whom_it_is():
    guide = (Path(__file__).parents[2] / "docs" / "clients.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| ((?:x|any packet)? ?\| ?x?) ?\| \S", guide, re.M))
    has = {"x | x": (LIVE, FILE), "x |": (LIVE,), "| x": (FILE,), "any packet |": (PACKET,)}
    assert {name: has[who.strip()] for name, who in rows.items()} == {
        option.name: option.of for option in option_table((), ()).values()
    }
