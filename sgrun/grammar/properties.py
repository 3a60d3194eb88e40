"""The sets of code points behind `\\p{...}`: general categories, scripts and a few more."""

from __future__ import annotations

import unicodedata
from functools import cache

from sgrun.grammar import charset
from sgrun.grammar.charset import CodePoints
from sgrun.grammar.scripts import SCRIPTS

# Long names of general categories, as in PropertyValueAliases.txt without "_", in lower case.
_CATEGORY_NAMES = {
    "othernotassigned": "Cn", "unassigned": "Cn", "other": "C", "control": "Cc", "cntrl": "Cc", "format": "Cf",
    "privateuse": "Co", "surrogate": "Cs", "letter": "L", "casedletter": "LC", "lowercaseletter": "Ll",
    "modifierletter": "Lm", "otherletter": "Lo", "titlecaseletter": "Lt", "uppercaseletter": "Lu", "mark": "M",
    "combiningmark": "M", "spacingmark": "Mc", "enclosingmark": "Me", "nonspacingmark": "Mn", "number": "N",
    "decimalnumber": "Nd", "digit": "Nd", "letternumber": "Nl", "othernumber": "No", "punctuation": "P", "punct": "P",
    "connectorpunctuation": "Pc", "dashpunctuation": "Pd", "closepunctuation": "Pe", "finalpunctuation": "Pf",
    "initialpunctuation": "Pi", "otherpunctuation": "Po", "openpunctuation": "Ps", "symbol": "S",
    "currencysymbol": "Sc", "modifiersymbol": "Sk", "mathsymbol": "Sm", "othersymbol": "So", "separator": "Z",
    "lineseparator": "Zl", "paragraphseparator": "Zp", "spaceseparator": "Zs",
}  # fmt: skip
_GROUPS = {"LC": ("Lu", "Ll", "Lt")}
_SCRIPT_NAMES = {name.lower(): name for name in SCRIPTS}
_SCRIPT_CODES = {
    "latn": "Latin", "grek": "Greek", "cyrl": "Cyrillic", "armn": "Armenian", "hebr": "Hebrew", "arab": "Arabic",
    "deva": "Devanagari", "beng": "Bengali", "guru": "Gurmukhi", "gujr": "Gujarati", "taml": "Tamil",
    "telu": "Telugu", "knda": "Kannada", "mlym": "Malayalam", "sinh": "Sinhala", "thai": "Thai", "laoo": "Lao",
    "tibt": "Tibetan", "mymr": "Myanmar", "geor": "Georgian", "hang": "Hangul", "ethi": "Ethiopic", "khmr": "Khmer",
    "mong": "Mongolian", "hira": "Hiragana", "kana": "Katakana", "bopo": "Bopomofo", "hani": "Han",
}  # fmt: skip


def property_set(text: str) -> CodePoints | None:
    """The code points with a property, given as between the braces of `\\p{...}`; None if the property is not known.

    Names are compared without case, spaces, `_` and `-` (UAX 44, LM3). Categories are those of Python's unicodedata.
    """
    name, equals, value = text.partition("=")
    folded = _folded(name)
    if equals:
        if folded in ("gc", "generalcategory"):
            return _category_by_name(_folded(value))
        return _script(_folded(value)) if folded in ("sc", "script") else None
    match folded:
        case "any":
            return ((0, charset.MAX_CODE_POINT),)
        case "ascii":
            return ((0, 0x7F),)
        case "assigned":
            return charset.complement(_categories()["Cn"])
    found = _category_by_name(folded)
    return _script(folded) if found is None else found


def _folded(name: str) -> str:
    return name.strip().lower().replace("_", "").replace("-", "").replace(" ", "")


def _category_by_name(folded: str) -> CodePoints | None:
    short = _CATEGORY_NAMES.get(folded, folded[:1].upper() + folded[1:])
    return general_category("LC" if short == "Lc" else short)


@cache
def _script(folded: str) -> CodePoints | None:
    name = _SCRIPT_CODES.get(folded) or _SCRIPT_NAMES.get(folded)
    if name is None:
        return None
    ranges = [pair.split("-") for pair in SCRIPTS[name].split()]
    return tuple((int(pair[0], 16), int(pair[-1], 16)) for pair in ranges)


@cache
def general_category(name: str) -> CodePoints | None:
    """The code points of a category ("Lu") or of a group of them ("L", "LC")."""
    by_name = _categories()
    members = _GROUPS.get(name) or [category for category in by_name if name and category.startswith(name)]
    return charset.union(*(by_name[category] for category in members)) if members else None


@cache
def _categories() -> dict[str, CodePoints]:
    # Planes 4 to 13 and most of 14 are unassigned, planes 15 and 16 are for private use.
    looked_at = [*range(0x40000), *range(0xE0000, 0xE1000)]
    ranges: dict[str, list[tuple[int, int]]] = {"Cn": [(0x40000, 0xDFFFF), (0xE1000, 0xEFFFF)], "Co": []}
    for plane in (0xF0000, 0x100000):
        ranges["Co"].append((plane, plane + 0xFFFD))
        ranges["Cn"].append((plane + 0xFFFE, plane + 0xFFFF))
    low, last, current = 0, 0, unicodedata.category("\0")
    for code_point in looked_at:
        category = unicodedata.category(chr(code_point))
        if category != current or code_point > last + 1:
            ranges.setdefault(current, []).append((low, last))
            low, current = code_point, category
        last = code_point
    ranges.setdefault(current, []).append((low, last))
    return {name: charset.of_ranges(pairs) for name, pairs in ranges.items()}
