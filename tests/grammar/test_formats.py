from __future__ import annotations

import json
from collections.abc import Callable

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scalar_walks import all_hold, label_of, strings

from sgrun.grammar.compiler import compile_grammar
from sgrun.grammar.formats import FORMAT_MAX_LEN, is_known_format
from sgrun.grammar.limits import Budget, CompileLimits
from sgrun.grammar.sample import Sampler
from sgrun.grammar.scalars import string_procedure
from sgrun.grammar.strings import Format, LengthAtMost, string_holds
from sgrun.types import JsonSchemaSpec

_HOSTS = [
    "실례.테스트", "straße.de", "a。b", "日本語", "hostname", "ابجد", "a-b", "l·l", "él·l·lé", "α\u0375β",
    "\u0375β", "א׳ב", "א״", "・ぁ", "a-・b丈・", "ب\u0660", "ب0\u06f0", "\u06f00", "क\u094d\u200dष", "क\u094d\u200c",
    "بي\u200cبي",
]  # fmt: skip
_NO_HOSTS = [
    "", ".", "-a", "a-", "\u302e실례", "\u0300a", "Ü", "a b", "é" * 64, "ab--c", "é--a", "1א", "א-\u05b0", "a·l", "l·",
    "α\u0375a", "\u0375", "a׳ב", "׳ב", "・", "a・", "\u0660", "ب\u06600", "ب\u0660\u06f0", "क\u200dष", "\u200dष",
    "ब\u200cब", "א\u0903", "a\ufe0f", "a\u034f", "\u1100\u1161",
]  # fmt: skip
_TABLE: dict[str, tuple[list[str], list[str]]] = {
    "date": (
        ["2024-02-29", "2000-02-29", "1999-12-31", "0001-01-01", "2023-04-30"],
        [
            "2023-02-29",
            "1900-02-29",
            "2023-04-31",
            "2023-13-01",
            "2023-00-10",
            "2023-1-01",
            "20230101",
            "2023-01-32",
            "",
        ],
    ),
    "time": (
        [
            "08:30:06Z",
            "23:59:59.999-12:00",
            "23:59:60Z",
            "23:59:60+00:00",
            "01:29:60+01:30",
            "15:59:60.5-08:00",
            "00:00:00z",
        ],
        [
            "24:00:00Z",
            "08:60:00Z",
            "08:30:61Z",
            "22:59:60Z",
            "23:58:60Z",
            "23:59:60+01:00",
            "08:30:06",
            "08:30Z",
            "08:30:06+24:00",
        ],
    ),
    "date-time": (
        [
            "1963-06-19T08:30:06.283185Z",
            "2024-02-29t00:00:00+05:45",
            "1998-12-31T23:59:60Z",
            "1998-12-31T15:59:60.1-08:00",
        ],
        [
            "1963-06-19 08:30:06Z",
            "1963-06-19T08:30:06",
            "1990-02-31T15:59:59Z",
            "1998-12-31T22:59:60Z",
            "1963-06-19T24:00:00Z",
        ],
    ),
    "duration": (
        ["P4DT12H30M5S", "PT36H", "P2W", "P1Y", "P1Y2M3D", "PT0S", "P1M", "PT1M"],
        ["P", "PT", "P1", "PT1D", "P2S", "P1Y2W", "P1D2H", "4D", "P2D1Y", "P1YT", "PT1H5S"],
    ),
    "email": (
        ["a@b", "joe.bloggs@example.com", '"joe bloggs"@example.com', "te~st@[127.0.0.1]", "a@[IPv6:::1]", "a+b@c-d.e"],
        ["a", "@b", "a@", ".a@b", "a.@b", "a..b@c", "a@b=c.d", "a@-b.c", "a@[127.0.0.300]", "a b@c", "é@b"],
    ),
    "idn-email": (["실례@실례.테스트", "a@b", '"é é"@ü.de'], ["a", "실례", "@실례", ".é@b"]),
    "hostname": (
        ["www.example.com", "xn--4gbwdl.xn--wgbh1c", "1host", "a" * 63, ".".join(["a" * 61] * 4), "a-b"],
        ["", ".", "-a", "a-", "a_b", "a..b", "a.", "a" * 64, ".".join(["a" * 63] * 4), "é"],
    ),
    "idn-hostname": (_HOSTS, _NO_HOSTS),
    "ipv4": (
        ["0.0.0.0", "255.255.255.255", "127.0.0.1"],
        ["256.0.0.1", "1.2.3", "01.2.3.4", "1.2.3.4.5", "1.2.3.4/8", "১.2.3.4"],
    ),
    "ipv6": (
        ["::", "::1", "1::", "1:2:3:4:5:6:7:8", "1::8", "::ffff:1.2.3.4", "1:2:3:4:5:6:1.2.3.4", "1:2:3:4:5:6:7::"],
        [
            "1",
            ":::",
            "1::2::3",
            "12345::",
            "1:2:3:4:5:6:7",
            "1:2:3:4:5:6:7:",
            ":1:2:3:4:5:6:7:8",
            "::1%eth1",
            "::1.2.3",
            "1:2:3:4:5:6:7:8:9",
            "1:2:3:4:5:6:7::8",
        ],
    ),
    "uri": (
        [
            "http://foo.bar/?q=a%20b#c",
            "urn:a:b",
            "mailto:a@b",
            "ldap://[2001:db8::7]/c?d",
            "a:",
            "file:///etc",
            "http://a:b@c:80/",
        ],
        [
            "//foo",
            "/abc",
            "abc",
            "",
            "http:// a",
            "1a:b",
            "a,b:c",
            "http://a/%zz",
            "http://a\\b",
            "http://[::1",
            "http://é",
            "a:#b#c",
        ],
    ),
    "uri-reference": (
        ["", "abc", "/a/b", "//foo?x", "#f", "http://a/b", "a/b:c"],
        ["\\\\a", "#a\\b", "a b", "1:b", "é"],
    ),
    "iri": (
        ["http://ƒøø.ßår/?∂éœ=πîx#πîüx", "http://a/\U0001f600"],
        ["/abc", "âππ", "http://a b", "http://[1:2", "http://\x80"],
    ),
    "iri-reference": (["âππ", "//ƒøø.ßår/", "#ƒrägmênt", ""], ["\\a", "#ƒ\\a", "a b"]),
    "uuid": (
        ["2EB8AA08-aa98-11ea-b4aa-73b441d16380"],
        ["2eb8aa08aa9811eab4aa73b441d16380", "2eb8aa08-aa98-11ea-b4ga-73b441d16380", ""],
    ),
    "uri-template": (
        ["", "http://e.com/{term:1}/{term}", "{+a,b*}{?x.y}", "a{#b}", "é%20"],
        ["{", "a{b", "}", "{a", "{}", "{a:0}", "{a:12345}", "a b", "%", "{a..b}"],
    ),
    "json-pointer": (["", "/", "/foo/0/~0~1", "/a//b", "/é "], ["a", "#", "/~", "/~2", "/a~"]),
    "relative-json-pointer": (["0", "1/foo", "120#", "0#"], ["", "/a", "-1", "01", "0##", "+1/a"]),
    "regex": (
        ["", "^a+$", "([abc])+\\s+$", "a{2,5}?|(?:b|(c))", "[^a-z_]\\d", "(?=a)b", "\\u00e9", "[0-9a-fA-F]{40}"],
        ["^(abc]", "(", "a**", "[z-a]", "\\", "a{2,1}", "*", "[", "(?<n"],
    ),
}


def test_every_known_format_has_a_row() -> None:
    assert {name for name in _TABLE if is_known_format(name)} == set(_TABLE)


@pytest.mark.parametrize("name", _TABLE)
def test_what_a_format_takes(name: str) -> None:
    taken, refused = _TABLE[name]
    procedure = strings(Format(name))
    for text in taken + refused:
        assert string_holds(Format(name), text) == (text in taken), text
        assert label_of(procedure, json.dumps(text, ensure_ascii=False)) == (text in taken), text
        if name != "idn-hostname":  # too many ranges for their hex digits
            assert label_of(procedure, json.dumps(text)) == (text in taken), text


_CHARS = {
    "date": "0123456789-",
    "ipv4": "0125.",
    "ipv6": "0af1:.",
    "email": "a@.-",
    "uuid": "0a-",
    "regex": "ab()[]*+?{}1,|^$\\d-z",
    "idn-hostname": "alß-.é\u0300日ا·͵αא׳・ぁبي\u200c\u200d\u0660\u06f00क\u094d",
}


@pytest.mark.parametrize("name", _CHARS)
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_what_a_format_takes_is_valid_for_jsonschema(name: str, data: st.DataObject) -> None:
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    assert name in checker.checkers
    text = data.draw(
        st.text(_CHARS[name], max_size=14) | st.sampled_from(_TABLE[name][0]).flatmap(_mutated(_CHARS[name]))
    )
    if string_holds(Format(name), text):
        assert checker.conforms(text, name)


def test_what_punycode_decodes_to_is_not_looked_at() -> None:
    for name in ("hostname", "idn-hostname"):
        assert string_holds(Format(name), "xn--4gbwdl") and string_holds(Format(name), "xn--a4gbwdl")


def test_international_host_names_by_random_walks_are_valid_for_idna() -> None:
    automaton = compile_grammar(JsonSchemaSpec('{"type":"string","format":"idn-hostname","maxLength":14}'))
    for seed in range(40):
        text = json.loads(Sampler(automaton, seed, soft_len=16).text())
        assert jsonschema.Draft202012Validator.FORMAT_CHECKER.conforms(text, "idn-hostname"), ascii(text)


def _mutated(chars: str) -> Callable[[str], st.SearchStrategy[str]]:
    return lambda text: st.builds(
        lambda at, char, drop: text[:at] + char + text[at + drop :],
        st.integers(0, len(text)),
        st.sampled_from(chars),
        st.integers(0, 1),
    )


@pytest.mark.parametrize("name", ["date", "ipv4", "ipv6"])
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_regular_formats_agree_with_jsonschema(name: str, data: st.DataObject) -> None:
    taken, refused = _TABLE[name]
    text = data.draw(
        st.text(_CHARS[name], max_size=14) | st.sampled_from(taken + refused).flatmap(_mutated(_CHARS[name]))
    )
    assert string_holds(Format(name), text) == jsonschema.Draft202012Validator.FORMAT_CHECKER.conforms(text, name)


def test_an_unknown_format_says_nothing() -> None:
    assert not is_known_format("color")
    assert string_holds(Format("color"), "anything")
    procedure = string_procedure([Format("color"), LengthAtMost(3)], all_hold, Budget(CompileLimits()))
    assert label_of(procedure, '"abc"') == 0
    assert label_of(procedure, '"abcd"') is None


def test_a_negated_format_is_its_complement() -> None:
    procedure = string_procedure([Format("hostname")], lambda truths: None if truths[0] else 3, Budget(CompileLimits()))
    long_name = ".".join(["a" * 60] * 5)
    assert len(long_name) > FORMAT_MAX_LEN["hostname"]
    assert [label_of(procedure, f'"{text}"') for text in ("a.b", "a_b", "", long_name)] == [None, 3, 3, 3]


def test_formats_are_compiled_once() -> None:
    def compiled() -> object:
        return string_procedure([Format("date-time")], all_hold, Budget(CompileLimits()))

    assert compiled() is compiled()
