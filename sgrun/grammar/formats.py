"""The formats of JSON schema as regular languages, most of them by a regular expression for the whole text.

Where a format is not regular, or exactness would cost thousands of states, the language is somewhat smaller than the
format, so that every text in it is valid:

- `time`, `date-time`: a leap second only at offsets of whole and half hours; no year 0000 (Python has none).
- `hostname`: what the Punycode of an `xn--` label decodes to is not looked at.
- `idn-hostname`: see idn.py; at most 63 code points in all, whatever the length of the Punycode.
- `email`, `idn-email`: address literals are IPv4 and IPv6 ones; without bounds on the length.
- `regex`: what ECMA 262 and Python both read: characters, escapes, classes with ranges such as a-f or 5-9 (that start
  or end at the first or last letter or digit), groups nested up to two deep, lookahead, repeats; no backreferences
  and no named groups.

Sources: RFC 3339 (date, time, duration), 5321 and 6531 (email), 1123 (hostname), 2673 and
4291 (ip), 3986 (uri), 3987 (iri), 4122 (uuid), 6570 (uri-template), 6901 (json-pointer).
"""

from __future__ import annotations

from collections.abc import Callable

from sgrun.grammar.idn import idn_hostname
from sgrun.grammar.limits import Budget
from sgrun.grammar.regex import parse_regex
from sgrun.grammar.syntax import Node

# The formats that bound the length as well, in code points.
FORMAT_MAX_LEN = {"hostname": 253, "idn-hostname": 63}


def is_known_format(name: str) -> bool:
    """Other names say nothing about a value: draft 2020-12 makes them annotations."""
    return name in _LANGUAGES


def format_node(name: str, budget: Budget) -> Node:
    """The texts of a known format, but for a bound on their length."""
    language = _LANGUAGES[name]()
    return parse_regex(language, budget) if isinstance(language, str) else language


def _one(*alternatives: str) -> str:
    return f"(?:{'|'.join(alternatives)})"


# RFC 3339. Years from 0001; February has a 29th day in leap years.
_YEAR = _one("[0-9]{3}[1-9]", "[0-9]{2}[1-9][0-9]", "[0-9][1-9][0-9]{2}", "[1-9][0-9]{3}")
_FOURTH = _one("0[48]", "[2468][048]", "[13579][26]")
_DATE = _one(
    f"{_YEAR}-(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])",
    f"{_YEAR}-(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)",
    f"{_YEAR}-02-(?:0[1-9]|1[0-9]|2[0-8])",
    f"(?:[0-9]{{2}}{_FOURTH}|{_FOURTH}00)-02-29",
)
_HOUR = "(?:[01][0-9]|2[0-3])"
_PART = r"(?:\.[0-9]+)?"


def _time() -> str:
    any_second = f"{_HOUR}:[0-5][0-9]:[0-5][0-9]{_PART}(?:[Zz]|[+-]{_HOUR}:[0-5][0-9])"
    leap_seconds = [f"23:59:60{_PART}[Zz]"]
    for minutes in range(29, 24 * 60, 30):  # it is 23:59:60 in UTC
        ahead, behind = (minutes + 1) % (24 * 60), 24 * 60 - 1 - minutes
        offsets = rf"(?:\+{_clock(ahead)}|-{_clock(behind)})"
        leap_seconds.append(f"{_clock(minutes)}:60{_PART}{offsets}")
    return _one(any_second, *leap_seconds)


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"


_SECONDS = "[0-9]+S"
_MINUTES = f"[0-9]+M(?:{_SECONDS})?"
_TIME_SPAN = f"T{_one(_SECONDS, _MINUTES, f'[0-9]+H(?:{_MINUTES})?')}"
_DAYS = "[0-9]+D"
_MONTHS = f"[0-9]+M(?:{_DAYS})?"
_DATE_SPAN = f"{_one(_DAYS, _MONTHS, f'[0-9]+Y(?:{_MONTHS})?')}(?:{_TIME_SPAN})?"
_DURATION = f"P{_one(_DATE_SPAN, _TIME_SPAN, '[0-9]+W')}"

# Addresses.
_BYTE = _one("25[0-5]", "2[0-4][0-9]", "1[0-9]{2}", "[1-9]?[0-9]")
_IPV4 = rf"{_BYTE}(?:\.{_BYTE}){{3}}"
_H16 = "[0-9A-Fa-f]{1,4}"
_LAST_32_BITS = _one(f"{_H16}:{_H16}", _IPV4)


def _ipv6() -> str:
    full = f"(?:{_H16}:){{6}}{_LAST_32_BITS}"
    shortened = []  # with `::`, which stands for at least one group
    for before in range(8):
        head = "" if before == 0 else f"{_H16}(?::{_H16}){{{before - 1}}}"
        room = 7 - before
        tails = [""]
        if room >= 1:
            tails.append(f"{_H16}(?::{_H16}){{0,{room - 1}}}")
        if room >= 2:
            tails.append(f"(?:{_H16}:){{0,{room - 2}}}{_IPV4}")
        shortened.append(f"{head}::{_one(*tails)}")
    return _one(full, *shortened)


_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOSTNAME = rf"{_LABEL}(?:\.{_LABEL})*"


def _email(beyond: str) -> str:
    """`beyond` is what may stand for a character besides ASCII, inside a class."""
    atom = f"[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~{beyond}-]+"
    quoted = rf'"(?:[ !#-\[\]-~{beyond}]|\\[ -~])*"'
    letter = f"[A-Za-z0-9{beyond}]"
    label = f"{letter}(?:[A-Za-z0-9{beyond}-]*{letter})?"
    literal = rf"\[(?:{_IPV4}|IPv6:{_ipv6()})\]"
    return rf"(?:{atom}(?:\.{atom})*|{quoted})@(?:{label}(?:\.{label})*|{literal})"


_NOT_ASCII = "\\u0080-\\U0010ffff"
_UCS = "".join(
    ["\\u00a0-\\ud7ff\\uf900-\\ufdcf\\ufdf0-\\uffef"]
    + [f"\\U000{plane:x}0000-\\U000{plane:x}fffd" for plane in range(1, 14)]
    + ["\\U000e1000-\\U000efffd"]
)
_PRIVATE = "\\ue000-\\uf8ff\\U000f0000-\\U000ffffd\\U00100000-\\U0010fffd"
_PERCENT = "%[0-9A-Fa-f]{2}"


def _uri(beyond: str, private: str, *, is_reference: bool) -> str:
    """RFC 3986, and 3987 with the characters it adds to the unreserved ones and to those of a query."""
    plain = f"A-Za-z0-9._~!$&'()*+,;={beyond}-"  # unreserved, sub-delims
    segment_char = f"(?:[:@{plain}]|{_PERCENT})"
    segments = f"(?:/{segment_char}*)*"
    absolute = f"/(?:{segment_char}+{segments})?"
    future = "[vV][0-9A-Fa-f]+\\.[A-Za-z0-9._~!$&'()*+,;=:-]+"
    host = rf"(?:\[(?:{_ipv6()}|{future})\]|(?:[{plain}]|{_PERCENT})*)"
    authority = f"(?:(?:[:{plain}]|{_PERCENT})*@)?{host}(?::[0-9]*)?"
    query = rf"(?:\?(?:[/?:@{private}{plain}]|{_PERCENT})*)?"
    fragment = f"(?:#(?:[/?:@{plain}]|{_PERCENT})*)?"
    with_scheme = (
        f"[A-Za-z][A-Za-z0-9+.-]*:{_one(f'//{authority}{segments}', absolute, f'{segment_char}+{segments}', '')}"
    )
    if not is_reference:
        return with_scheme + query + fragment
    first = f"(?:[@{plain}]|{_PERCENT})+"  # without a colon, which would end a scheme
    relative = _one(f"//{authority}{segments}", absolute, f"{first}{segments}", "")
    return _one(with_scheme, relative) + query + fragment


def _uri_template() -> str:
    literal = rf"(?:[!#$&(-;=?-\[\]_a-z~{_UCS}{_PRIVATE}]|{_PERCENT})"
    name_char = f"(?:[A-Za-z0-9_]|{_PERCENT})"
    variable = rf"{name_char}(?:\.?{name_char})*(?::[1-9][0-9]{{0,3}}|\*)?"
    return rf"(?:{literal}|\{{[+#./;?&=,!@|]?{variable}(?:,{variable})*\}})*"


_JSON_POINTER = r"(?:/(?:[^~/]|~[01])*)*"


def _regex() -> str:
    in_order = ["0-[0-9]", "[0-9]-9", "A-[A-Z]", "[A-Z]-Z", "a-[a-z]", "[a-z]-z"]
    hex_digit = "[0-9A-Fa-f]"
    escape = rf"\\(?:[dDwWsSfnrtv^$\\.*+?()\[\]{{}}|/]|x{hex_digit}{{2}}|u{hex_digit}{{4}})"
    member = _one(*in_order, r"[^\\\[\]^-]", escape)
    characters = rf"\[\^?{member}+\]"
    up_to = [f"{low},[{low}-9]" for low in range(10)]
    repeat = rf"(?:(?:[*+?]|\{{(?:[0-9]{{1,3}},?|{'|'.join(up_to)})\}})\??)?"
    single = rf"(?:[^\\^$.|?*+()\[\]{{}}]|\.|{escape}|{characters})"
    sequence = f"(?:{single}{repeat}|[\\^$]|\\\\[bB])*"
    for _ in range(2):
        branches = rf"{sequence}(?:\|{sequence})*"
        group = rf"\((?:\?:)?{branches}\){repeat}|\(\?[=!]{branches}\)"
        sequence = f"(?:{single}{repeat}|[\\^$]|\\\\[bB]|{group})*"
    return rf"{sequence}(?:\|{sequence})*"


_HEX = "[0-9A-Fa-f]"
_LANGUAGES: dict[str, Callable[[], str | Node]] = {
    "date": lambda: _DATE,
    "time": _time,
    "date-time": lambda: f"{_DATE}[Tt]{_time()}",
    "duration": lambda: _DURATION,
    "email": lambda: _email(""),
    "idn-email": lambda: _email(_NOT_ASCII),
    "hostname": lambda: _HOSTNAME,
    "idn-hostname": idn_hostname,
    "ipv4": lambda: _IPV4,
    "ipv6": _ipv6,
    "uri": lambda: _uri("", "", is_reference=False),
    "uri-reference": lambda: _uri("", "", is_reference=True),
    "iri": lambda: _uri(_UCS, _PRIVATE, is_reference=False),
    "iri-reference": lambda: _uri(_UCS, _PRIVATE, is_reference=True),
    "uuid": lambda: f"{_HEX}{{8}}-(?:{_HEX}{{4}}-){{3}}{_HEX}{{12}}",
    "uri-template": _uri_template,
    "json-pointer": lambda: _JSON_POINTER,
    "relative-json-pointer": lambda: f"(?:0|[1-9][0-9]*)(?:#|{_JSON_POINTER})",
    "regex": _regex,
}
