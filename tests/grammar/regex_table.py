"""Regular expressions as people write them, with texts that match as a whole and texts that do not.

One line each: pattern ⇒ accepted texts ⇏ rejected texts; ¦ between texts, ∅ for the empty text, ␤ for a newline.
`PYTHON` is read by `re` too and has to agree with it, and so is `REFUSED`, which no finite automaton follows, or not
without effort that few patterns are worth; `BEYOND_PYTHON` is stated by hand; `ECMA` are patterns of JSON schemas, which
are searched for. The benchmark counts all of them.
"""
# ruff: noqa: E501 - a pattern does not break

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    pattern: str
    accepted: list[str]
    rejected: list[str]


def _texts(joined: str) -> list[str]:
    return ["" if text == "∅" else text.replace("␤", "\n") for text in joined.split(" ¦ ")]


def _rows(table: str) -> list[Row]:
    rows = []
    for line in table.strip().splitlines():
        if line and not line.startswith("##"):
            pattern, texts = line.split(" ⇒ ")
            accepted, rejected = texts.split(" ⇏ ")
            rows.append(Row(pattern, _texts(accepted), _texts(rejected)))
    return rows


PYTHON = _rows(r'''
## dates and times
\d{4}-\d{2}-\d{2} ⇒ 2024-01-31 ¦ 1999-12-01 ⇏ 24-01-31 ¦ 2024-1-3
\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01]) ⇒ 2024-02-30 ¦ 2000-12-31 ⇏ 2024-13-01 ¦ 2024-00-10 ¦ 2024-01-32
(0?[1-9]|1[0-2])/(0?[1-9]|[12][0-9]|3[01])/(19|20)\d\d ⇒ 1/2/1999 ¦ 12/31/2024 ⇏ 13/1/2020 ¦ 1/32/2020 ¦ 1/1/1820
(0[1-9]|[12][0-9]|3[01])\.(0[1-9]|1[012])\.(\d{4}|\d{2}) ⇒ 31.12.2024 ¦ 01.01.99 ⇏ 31-12-2024 ¦ 1.1.99
([01]\d|2[0-3]):[0-5]\d ⇒ 00:00 ¦ 23:59 ⇏ 24:00 ¦ 9:30
([01]?\d|2[0-3]):[0-5]\d(:[0-5]\d)? ⇒ 9:30 ¦ 23:59:59 ⇏ 24:00 ¦ 12:60
(1[0-2]|0?[1-9]):[0-5]\d ?([AaPp][Mm]) ⇒ 9:05 am ¦ 12:00PM ⇏ 13:00 PM ¦ 0:30 am
\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2}) ⇒ 2024-01-31T10:00:00Z ¦ 2024-01-31T10:00:00.123+02:00 ⇏ 2024-01-31 10:00:00Z ¦ 2024-01-31T10:00:00
\d{4}-W(0[1-9]|[1-4]\d|5[0-3])-[1-7] ⇒ 2024-W01-1 ¦ 2020-W53-7 ⇏ 2024-W54-1 ¦ 2024-W1-1
P(?=.)(\d+Y)?(\d+M)?(\d+D)?(T(?=\d)(\d+H)?(\d+M)?(\d+S)?)? ⇒ P1Y2M ¦ PT5M ¦ P1DT12H ⇏ P ¦ P1DT ¦ 1Y
(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d{2} (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d{4} \d{2}:\d{2}:\d{2} GMT ⇒ Sun, 06 Nov 1994 08:49:37 GMT ¦ Mon, 01 Jan 2024 00:00:00 GMT ⇏ Son, 06 Nov 1994 08:49:37 GMT ¦ Sun, 6 Nov 1994 08:49:37 GMT
(?:(?:19|20)\d{2})(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01]) ⇒ 20240131 ¦ 19991231 ⇏ 20241331 ¦ 2024013
(?P<year>\d{4})(?P<sep>[-/])(?P<month>\d{2})[-/]\d{2} ⇒ 2024-01/31 ¦ 2024/01/31 ⇏ 2024.01.31 ¦ 2024-1-31
(Q[1-4]) (20\d{2}) ⇒ Q1 2024 ¦ Q4 2099 ⇏ Q5 2024 ¦ Q1 1999
1[0-9]{9}(\.\d{1,6})? ⇒ 1700000000 ¦ 1700000000.123456 ⇏ 170000000 ¦ 2700000000
(January|February|March|April|May|June|July|August|September|October|November|December) ([12]?\d|3[01])(st|nd|rd|th)?, \d{4} ⇒ May 5th, 2024 ¦ March 31, 1999 ⇏ Mai 5, 2024 ¦ May 32, 2024
(\d+)(ms|s|m|h|d) ⇒ 10ms ¦ 3h ⇏ ms ¦ 10 s
([+-])(?:0\d|1[0-4]):?[0-5]\d ⇒ +01:00 ¦ -1400 ⇏ +15:00 ¦ 0100
(\d{1,2})月(\d{1,2})日 ⇒ 1月1日 ¦ 12月31日 ⇏ 1月 ¦ 一月1日
## network
((25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)\.){3}(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d) ⇒ 127.0.0.1 ¦ 255.255.255.255 ⇏ 256.1.1.1 ¦ 1.2.3 ¦ 01.2.3.4
(?:\d{1,3}\.){3}\d{1,3}(?:/\d{1,2})? ⇒ 10.0.0.0/8 ¦ 192.168.1.1 ⇏ 10.0.0/8 ¦ 1.2.3.4/
([0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4} ⇒ 2001:0db8:85a3:0000:0000:8a2e:0370:7334 ¦ 1:2:3:4:5:6:7:8 ⇏ ::1 ¦ 1:2:3:4:5:6:7
(([0-9a-f]{1,4}:){1,7}:|::|([0-9a-f]{1,4}:){1,6}:[0-9a-f]{1,4}) ⇒ fe80:: ¦ :: ¦ fe80::1 ⇏ fe80:1 ¦ :::
([0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2} ⇒ 00:1A:2b:3C:4d:5E ¦ 00-1a-2b-3c-4d-5e ⇏ 00:1A:2B:3C:4D ¦ 001A2B3C4D5E
([0-9a-f]{4}\.){2}[0-9a-f]{4} ⇒ 001a.2b3c.4d5e ¦ ffff.ffff.ffff ⇏ 001a.2b3c ¦ 001A.2b3c.4d5e
(?!-)[A-Za-z0-9-]{1,63} ⇒ example ¦ a-b ⇏ -a ¦ a_b
(?=.{1,253}$)(?:(?!-)[a-z0-9-]{1,62}[a-z0-9]\.)+[a-z]{2,63} ⇒ www.example.com ¦ a1.b2.org ⇏ example ¦ -ab.com ¦ ab-.com
(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9][a-z0-9-]{0,61}[a-z0-9] ⇒ example.com ¦ a.b-c.de ⇏ example ¦ a..b ¦ -a.com
https?://[^\s/$.?#].[^\s]* ⇒ http://a.b/c?d ¦ https://ü.de ⇏ ftp://a.b ¦ http:// a
(https?|ftp)://(-\.)?([^\s/?\.#]+\.?)+(/[^\s]*)? ⇒ http://foo.com/blah_blah ¦ ftp://a ⇏ http:// ¦ //a
https?://(?:www\.)?[-a-zA-Z0-9@:%._+~#=]{1,256}\.[a-zA-Z0-9()]{1,6}\b(?:[-a-zA-Z0-9()@:%_+.~#?&/=]*) ⇒ http://www.example.com/x?y=1 ¦ https://a.b ⇏ http://localhost ¦ https:/a.b
(?:mailto|tel|sms):\S+ ⇒ mailto:a@b.c ¦ tel:+123 ⇏ mailto: ¦ http:a
[a-z][a-z0-9+.-]*:.+ ⇒ urn:x ¦ git+ssh://h ⇏ :x ¦ 1a:x
urn:[a-z0-9][a-z0-9-]{0,31}:[a-z0-9()+,\-.:=@;$_!*'%/?#]+ ⇒ urn:isbn:0451450523 ¦ urn:a:b ⇏ urn::b ¦ urn:-a:b
(?:[1-9]\d{0,3}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d{2}|655[0-2]\d|6553[0-5]) ⇒ 80 ¦ 65535 ⇏ 0 ¦ 65536 ¦ 080
[\w.+-]+@[\w-]+\.[a-z]{2,4} ⇒ foo.bar+1@example.org ¦ x@y.com ⇏ @y.com ¦ x@y
[a-zA-Z0-9.!#$%&'*+/=?^_`{|}~-]+@[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)* ⇒ a@b ¦ x!y@a-b.c ⇏ a@-b ¦ a b@c
(?:[^<>"@]+ )?<[^<>@\s]+@[^<>@\s]+> ⇒ Ann B <a@b.c> ¦ <a@b.c> ⇏ a@b.c ¦ Ann <a b@c>
(?i)(GET|POST|PUT|PATCH|DELETE|HEAD|OPTIONS) (/\S*) HTTP/(1\.[01]|2|3) ⇒ GET / HTTP/1.1 ¦ post /x?y HTTP/2 ⇏ GET x HTTP/1.1 ¦ FETCH / HTTP/1.1
[A-Za-z0-9-]+: [^\r\n]* ⇒ Content-Type: text/plain ¦ X-A: 1 ⇏ Content Type: x ¦ :
(?:[a-z]+/(?:[a-z0-9.+-]+|\*))|\*/\* ⇒ application/json ¦ image/* ¦ */* ⇏ application ¦ */json
(?:[1-5]\d{2}) ⇒ 200 ¦ 599 ⇏ 600 ¦ 99
\?(?:[\w.]+=[^&#]*&)*[\w.]+=[^&#]* ⇒ ?a=1 ¦ ?a=1&b=2 ⇏ ?a ¦ a=1 ¦ ?a=1&b
(?:%[0-9A-F]{2}|[A-Za-z0-9\-_.~])+ ⇒ a%20b ¦ ~x ⇏ a b ¦ %2g
(?:(?:[a-z0-9-]+\.)*amazonaws\.com|localhost)(?::\d{2,5})? ⇒ s3.eu.amazonaws.com:443 ¦ localhost ⇏ amazonaws.org ¦ localhost:1
## identifiers and code
[A-Za-z_]\w* ⇒ foo ¦ _x1 ¦ zß ⇏ 1a ¦ a-b
[A-Za-z_][A-Za-z0-9_]* ⇒ foo_bar ¦ A1 ⇏ 9a ¦ é
[a-z]+(?:_[a-z0-9]+)* ⇒ snake_case ¦ a ⇏ _a ¦ a__b ¦ A
[a-z]+(?:[A-Z][a-z0-9]*)* ⇒ camelCase ¦ x ⇏ Camel ¦ camel_case
(?:[A-Z][a-z0-9]+)+ ⇒ PascalCase ¦ Ab1 ⇏ pascal ¦ ABC
[a-z0-9]+(?:-[a-z0-9]+)* ⇒ kebab-case ¦ a1 ⇏ -a ¦ a--b
[A-Z][A-Z0-9_]* ⇒ CONST_1 ¦ A ⇏ a ¦ _A
(?!(?:if|else|for|while|return)\b)[a-z_]\w* ⇒ iffy ¦ x ¦ returned ⇏ if ¦ return ¦ 1x
\$[a-zA-Z_]\w*|\$\{[^}]+\} ⇒ $HOME ¦ ${a b} ⇏ $1 ¦ ${}
0[xX][0-9a-fA-F]+(?:_[0-9a-fA-F]+)* ⇒ 0xFF ¦ 0Xdead_beef ⇏ 0x ¦ 0x_1
0b[01]+|0o[0-7]+ ⇒ 0b101 ¦ 0o17 ⇏ 0b2 ¦ 0o8
[+-]?\d+ ⇒ -1 ¦ +42 ¦ 0 ⇏ 1.0 ¦ --1
[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)? ⇒ 1. ¦ .5 ¦ -1e10 ⇏ . ¦ e5 ¦ 1e
-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)? ⇒ 0 ¦ -1.5E+3 ⇏ 01 ¦ 1. ¦ +1
"(?:[^"\\]|\\.)*" ⇒ "a" ¦ "a\"b" ¦ "" ⇏ "a"b" ¦ "a\"
'(?:[^'\\\n]|\\.)*' ⇒ 'x' ¦ 'it\'s' ⇏ 'a␤b' ¦ 'it's'
(?s)/\*.*?\*/ ⇒ /* a */ ¦ /**/ ⇏ /* a ¦ /*/
//[^\n]* ⇒ // x ¦ // ⇏ / x ¦ //␤
#.*$ ⇒ # a ¦ # ⇏ a # b ¦ ##␤x
(?:public|private|protected)?\s*(?:static\s+)?[\w<>\[\]]+\s+\w+\s*\([^)]*\) ⇒ public static void main(String[] a) ¦ int f() ⇏ f() ¦ int f(
def [a-z_]+\((?:\w+(?:, \w+)*)?\): ⇒ def f(): ¦ def g_h(a, b): ⇏ def f(a,): ¦ def F():
import \w+(?:\.\w+)*(?: as \w+)? ⇒ import os.path ¦ import numpy as np ⇏ import ¦ import a. ¦ import a as
from \.{0,3}\w* import (?:\*|\w+(?:, \w+)*) ⇒ from .a import b, c ¦ from x import * ⇏ from a import ¦ import a
(?:async )?function\*? ?\w*\([^()]*\) ⇒ function f(a) ¦ async function () ⇏ function f ¦ func f()
\w+\s*=>\s*\{[^{}]*\} ⇒ x => { return 1 } ¦ a=>{} ⇏ x -> {} ¦ x => y
@\w+(?:\([^)]*\))? ⇒ @Override ¦ @Get("/x") ⇏ Override ¦ @ x
<([a-z][a-z0-9]*)(?: [a-z-]+="[^"]*")*\s*/?> ⇒ <br/> ¦ <a href="x"> ⇏ <a href=x> ¦ </a>
<!--(?:(?!-->)[\s\S])*--> ⇒ <!-- a␤b --> ¦ <!----> ⇏ <!-- a --> b --> ¦ <!-- a
&(?:[a-z]+|#\d+|#x[0-9a-f]+); ⇒ &amp; ¦ &#39; ¦ &#x27; ⇏ &amp ¦ &; ¦ &#x;
\{\{\s*[\w.]+(?:\|\w+)*\s*\}\} ⇒ {{ user.name|upper }} ¦ {{x}} ⇏ { x } ¦ {{}}
%(?:\d+\$)?[-+ 0#]*(?:\d+|\*)?(?:\.(?:\d+|\*))?[diouxXeEfgGcs%] ⇒ %d ¦ %-5.2f ¦ %1$s ⇏ %y ¦ d
\\(?:[abfnrtv\\'"]|x[0-9a-f]{2}|u[0-9a-f]{4}) ⇒ \n ¦ \x41 ¦ \u00e9 ⇏ \q ¦ \x4
(?:[a-z_]\w*::)*[A-Za-z_]\w*!? ⇒ std::vec::Vec ¦ println! ⇏ ::a ¦ a::
&(?:'[a-z]+ )?(?:mut )?\w+ ⇒ &'a str ¦ &mut x ⇏ &' str ¦ mut x
fn \w+(?:<[^>]+>)?\([^)]*\)(?: -> [\w<>&]+)? ⇒ fn f() ¦ fn g<T>(x: T) -> Vec<T> ⇏ fn () ¦ fn f -> u8
[0-9a-f]{7,40} ⇒ deadbeef ¦ 0123456 ⇏ 012345 ¦ DEADBEEF
[0-9a-f]{40} ⇒ da39a3ee5e6b4b0d3255bfef95601890afd80709 ¦ 0000000000000000000000000000000000000000 ⇏ da39 ¦ Da39a3ee5e6b4b0d3255bfef95601890afd80709
[A-Fa-f0-9]{64} ⇒ e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 ¦ E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855 ⇏ e3b0 ¦ g3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
(?:feat|fix|docs|chore)(?:\([\w-]+\))?!?: .{1,72} ⇒ feat(core)!: x ¦ fix: a b ⇏ feat : x ¦ fix:
(?:refs/heads/)?(?!.*(?:\.\.|//))[\w.\-/]+ ⇒ refs/heads/main ¦ feature/x-1 ⇏ a..b ¦ a//b
[Tt]o-?[Dd]o ⇒ todo ¦ To-Do ⇏ to do ¦ TODO
\((?:[^()]|\([^()]*\))*\) ⇒ (a(b)c) ¦ () ⇏ (a ¦ (a(b(c)))
\[(?:\d+(?:,\s*\d+)*)?\] ⇒ [] ¦ [1, 2,3] ⇏ [1,] ¦ [a]
(?x) [a-z]+ \s* = \s* \d+  # an assignment ⇒ a = 1 ¦ b=2 ⇏ a == 1 ¦ = 1
## versions, ids, checks
(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-((?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?(?:\+([0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*))? ⇒ 1.0.0 ¦ 1.0.0-alpha.1+build.5 ⇏ 1.0 ¦ 01.0.0 ¦ 1.0.0-01
v?\d+(?:\.\d+){0,3}(?:(?:a|b|rc)\d+)?(?:\.post\d+)?(?:\.dev\d+)? ⇒ v1 ¦ 1.2.3rc1 ¦ 1.0.post1.dev2 ⇏ v ¦ 1.2.3.4.5 ¦ 1.x
(?:\^|~|>=|<=|>|<|=)?\s*\d+(?:\.(?:\d+|x|\*)){0,2} ⇒ ^1.2.3 ¦ >= 1.x ⇏ ^ ¦ 1.2.3.4
[0-9a-f]{8}-[0-9a-f]{4}-[1-5][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12} ⇒ 123e4567-e89b-12d3-a456-426614174000 ¦ 00000000-0000-4000-8000-000000000000 ⇏ 123e4567e89b12d3a456426614174000 ¦ 123e4567-e89b-62d3-a456-426614174000
\{?[0-9A-F]{8}(?:-[0-9A-F]{4}){3}-[0-9A-F]{12}\}? ⇒ {123E4567-E89B-12D3-A456-426614174000} ¦ 123E4567-E89B-12D3-A456-426614174000 ⇏ 123e4567-e89b-12d3-a456-426614174000 ¦ {}
[0-9A-HJKMNP-TV-Z]{26} ⇒ 01ARZ3NDEKTSV4RRFFQ69G5FAV ¦ 00000000000000000000000000 ⇏ 01ARZ3NDEKTSV4RRFFQ69G5FA ¦ 01ARZ3NDEKTSV4RRFFQ69G5FAU
[\w-]{21} ⇒ V1StGXR8_Z5jdHi6B-myT ¦ aaaaaaaaaaaaaaaaaaaaa ⇏ abc ¦ V1StGXR8_Z5jdHi6B+myT
[a-f\d]{24} ⇒ 507f1f77bcf86cd799439011 ¦ 000000000000000000000000 ⇏ 507f1f77bcf86cd79943901 ¦ 507F1f77bcf86cd799439011
arn:aws:[a-z0-9-]+:[a-z0-9-]*:\d{0,12}:[^\s]+ ⇒ arn:aws:s3:::bucket/key ¦ arn:aws:iam:us-east-1:123456789012:user/a ⇏ arn:aws:s3: ¦ arn:gcp:s3:::b
(?:AKIA|ASIA)[A-Z0-9]{16} ⇒ AKIAIOSFODNN7EXAMPLE ¦ ASIA0000000000000000 ⇏ AKIA ¦ AKIAiosfodnn7example
[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]* ⇒ eyJ0.eyJz.c2ln ¦ a.b. ⇏ a.b ¦ a.b.c.d
(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)? ⇒ aGVsbG8= ¦ ∅ ¦ YQ== ⇏ aGVsbG8 ¦ a=== ¦ YQ=
Bearer [A-Za-z0-9\-._~+/]+=* ⇒ Bearer abc== ¦ Bearer x.y.z ⇏ bearer abc ¦ Bearer
97[89][- ]?\d{1,5}[- ]?\d{1,7}[- ]?\d{1,6}[- ]?\d ⇒ 978-3-16-148410-0 ¦ 9783161484100 ⇏ 977-3-16-148410-0 ¦ 978
(?:\d[- ]?){9}[\dX] ⇒ 0-306-40615-2 ¦ 080442957X ⇏ 080442957Y ¦ 08044295
\d{4}-\d{3}[\dX] ⇒ 0378-5955 ¦ 2434-561X ⇏ 03785955 ¦ 0378-595x
10\.\d{4,9}/[-._;()/:A-Za-z0-9]+ ⇒ 10.1000/182 ¦ 10.1038/s41586-020-2649-2 ⇏ 11.1000/182 ¦ 10.10/x
[A-Z]{2}\d{2}[A-Z0-9]{11,30} ⇒ DE89370400440532013000 ¦ GB82WEST12345698765432 ⇏ DE8937040044 ¦ de89370400440532013000
[A-Z]{6}[A-Z0-9]{2}(?:[A-Z0-9]{3})? ⇒ DEUTDEFF ¦ DEUTDEFF500 ⇏ DEUTDEF ¦ DEUTDEFF50
4\d{12}(?:\d{3})?|5[1-5]\d{14}|3[47]\d{13} ⇒ 4111111111111111 ¦ 378282246310005 ⇏ 6111111111111111 ¦ 411111111111111
(?:\d{4}[ -]?){3}\d{4} ⇒ 4111 1111 1111 1111 ¦ 4111111111111111 ⇏ 4111 1111 1111 ¦ 4111_1111_1111_1111
(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4} ⇒ 123-45-6789 ¦ 001-01-0001 ⇏ 000-45-6789 ¦ 666-45-6789 ¦ 123-00-6789 ¦ 123-45-0000
[A-CEGHJ-PR-TW-Z]{2} ?\d{2} ?\d{2} ?\d{2} ?[A-D] ⇒ AB 12 34 56 C ¦ AB123456C ⇏ DA123456C ¦ AB123456E
[A-Z]{5}\d{4}[A-Z] ⇒ ABCDE1234F ¦ ZZZZZ0000Z ⇏ ABCD1234F ¦ abcde1234f
\d{3}\.\d{3}\.\d{3}-\d{2} ⇒ 123.456.789-09 ¦ 000.000.000-00 ⇏ 12345678909 ¦ 123.456.789-0
[0-8]?\d{7}[A-HJ-NP-TV-Z] ⇒ 12345678Z ¦ 1234567L ⇏ 1234567I ¦ 123456L
[A-HJ-NPR-Z0-9]{17} ⇒ 1HGCM82633A004352 ¦ JH4KA7561PC008269 ⇏ 1HGCM82633A00435 ¦ IHGCM82633A004352
[A-Z]{2}[0-9]{6}[A-Z]? ⇒ AB123456 ¦ AB123456C ⇏ A123456 ¦ AB12345
(?:ATU\d{8}|BE0\d{9}|DE\d{9}|FR[A-HJ-NP-Z0-9]{2}\d{9}|NL\d{9}B\d{2}) ⇒ DE123456789 ¦ ATU12345678 ¦ NL123456789B01 ⇏ DE12345678 ¦ AT12345678
[A-Z]{3}-\d{1,5} ⇒ ABC-1 ¦ XYZ-12345 ⇏ AB-1 ¦ ABC-123456
CVE-\d{4}-\d{4,7} ⇒ CVE-2024-12345 ¦ CVE-1999-0001 ⇏ CVE-24-1234 ¦ CVE-2024-123
[a-z]{2,3}(?:-[A-Z][a-z]{3})?(?:-(?:[A-Z]{2}|\d{3}))? ⇒ en ¦ zh-Hant-TW ¦ es-419 ⇏ EN ¦ en-us ¦ zh-TW-Hant
## phone numbers and postal codes
\+?1?[-. ]?\(?[2-9]\d{2}\)?[-. ]?\d{3}[-. ]?\d{4} ⇒ (415) 555-2671 ¦ +1 415.555.2671 ¦ 4155552671 ⇏ 115-555-2671 ¦ 415-555-267
\+[1-9]\d{1,14} ⇒ +14155552671 ¦ +4930123456 ⇏ +0123 ¦ 14155552671 ¦ +1234567890123456
(?:\+49|0)(?:\s?\d){6,13} ⇒ +49 30 123456 ¦ 030123456 ⇏ 49 30 123456 ¦ +49 30
(?:(?:\+|00)33|0)\s*[1-9](?:[\s.-]*\d{2}){4} ⇒ +33 1 23 45 67 89 ¦ 01.23.45.67.89 ⇏ 33 1 23 45 67 89 ¦ 01 23 45 67
(?:\+44\s?7\d{3}|\(?07\d{3}\)?)\s?\d{3}\s?\d{3} ⇒ +44 7911 123 456 ¦ 07911123456 ⇏ 08911123456 ¦ +44 7911 123
(?:\+?86)?1[3-9]\d{9} ⇒ 13800138000 ¦ +8613800138000 ⇏ 12800138000 ¦ 1380013800
0\d{1,4}-\d{1,4}-\d{4} ⇒ 03-1234-5678 ¦ 090-1234-5678 ⇏ 3-1234-5678 ¦ 03-1234-567
(?:\+91[\s-]?)?[6-9]\d{9} ⇒ +91 9876543210 ¦ 6000000000 ⇏ 5876543210 ¦ +91-987654321
(?:\+55 ?)?\(?\d{2}\)? ?9?\d{4}-?\d{4} ⇒ +55 (11) 91234-5678 ¦ 1112345678 ⇏ 11 234-5678 ¦ (11 91234_5678
(?:\+7|8)[ -]?\(?9\d{2}\)?[ -]?\d{3}[ -]?\d{2}[ -]?\d{2} ⇒ +7 (912) 345-67-89 ¦ 89123456789 ⇏ +7 812 345-67-89 ¦ 9123456789
(?:\+61|0)4\d{2} ?\d{3} ?\d{3} ⇒ 0412 345 678 ¦ +61412345678 ⇏ 0512 345 678 ¦ 412345678
\d{5}(?:-\d{4})? ⇒ 12345 ¦ 12345-6789 ⇏ 1234 ¦ 12345-
[A-Z]{1,2}\d[A-Z\d]? ?\d[A-Z]{2} ⇒ SW1A 1AA ¦ M11AE ⇏ SW1A 1A ¦ 1AA 1AA
[ABCEGHJ-NPRSTVXY]\d[ABCEGHJ-NPRSTV-Z] ?\d[ABCEGHJ-NPRSTV-Z]\d ⇒ K1A 0B1 ¦ H0H0H0 ⇏ D1A 0B1 ¦ K1A-0B1
(?:0[1-9]|[1-8]\d|9[0-8])\d{3} ⇒ 75001 ¦ 01000 ⇏ 00100 ¦ 99000
\d{4}\s?[A-Z]{2} ⇒ 1234 AB ¦ 1234AB ⇏ 123 AB ¦ 1234 ab
〒?\d{3}-\d{4} ⇒ 〒100-0001 ¦ 100-0001 ⇏ 1000001 ¦ 〒100-001
## money and measures
\$\d{1,3}(?:,\d{3})*(?:\.\d{2})? ⇒ $1,234.56 ¦ $5 ⇏ $1234 ¦ $1.5
[€£¥$]\s?\d+(?:[.,]\d{2})? ⇒ €10,50 ¦ £ 3 ⇏ ₿1 ¦ €10,5
-?\d{1,3}(?:\.\d{3})*,\d{2} ?€ ⇒ 1.234,56 € ¦ -0,99€ ⇏ 1234,56 € ¦ 1,5 €
(?:USD|EUR|GBP|JPY|CNY) \d+(?:\.\d{1,2})? ⇒ USD 10 ¦ EUR 0.5 ⇏ usd 10 ¦ USD 1.234
\(\$?\d+(?:\.\d\d)?\)|-?\$?\d+(?:\.\d\d)? ⇒ ($5.00) ¦ -$3 ⇏ ($5 ¦ 5.0
(?:100(?:\.0+)?|\d{1,2}(?:\.\d+)?)% ⇒ 100% ¦ 3.5% ⇏ 101% ¦ %
\d+(?:\.\d+)?\s?(?:[kMGT]i?B|bytes) ⇒ 1.5 GiB ¦ 10kB ⇏ 1.5 gb ¦ GB
-?\d+(?:\.\d+)?\s?°[CF] ⇒ 21.5 °C ¦ -4°F ⇏ 21 C ¦ °C
\d+(?:\.\d+)? ?(?:mm|cm|m|km|in|ft|mi) ⇒ 5 km ¦ 3.2mm ⇏ 5 nm ¦ km
-?(?:90(?:\.0+)?|[1-8]?\d(?:\.\d+)?),\s*-?(?:180(?:\.0+)?|(?:1[0-7]\d|\d{1,2})(?:\.\d+)?) ⇒ 52.5,13.4 ¦ -90, 180.0 ⇏ 91,0 ¦ 0,181
\d{1,2}°\d{1,2}'\d{1,2}(?:\.\d+)?"[NSEW] ⇒ 52°31'12"N ¦ 13°24'18.5"E ⇏ 52°31'12" ¦ 52 31 12 N
\d+:\d+ ⇒ 16:9 ¦ 1:1 ⇏ 16x9 ¦ :1
\d+(?:/\d+)? (?:cups?|tbsp|tsp|g|ml) ⇒ 1/2 cup ¦ 200 g ⇏ half cup ¦ 1/ cup
(?:1?\d|2[0-4]) ?[ap]\.?m\.? ⇒ 9 a.m. ¦ 12pm ⇏ 25 pm ¦ 9 xm
## files
(?:/[^/\0]+)+/? ⇒ /usr/bin ¦ /a/b/ ⇏ usr/bin ¦ //
(?:\.{1,2}/)*(?:[\w.-]+/)*[\w.-]+\.(?:py|js|ts|rs|go) ⇒ ../a/b.py ¦ x.rs ⇏ x.c ¦ /a.py
[A-Za-z]:\\(?:[^\\/:*?"<>|\r\n]+\\)*[^\\/:*?"<>|\r\n]* ⇒ C:\Windows\x.dll ¦ d:\ ⇏ C:/a ¦ C:\a?b
\\\\[\w.-]+(?:\\[^\\]+)+ ⇒ \\srv\share ¦ \\a\b\c ⇏ \srv\share ¦ \\srv
[^/\\]+\.(?i:jpe?g|png|gif|webp) ⇒ a.JPG ¦ b.c.png ⇏ a.bmp ¦ .png
[\w,\s-]+\.[A-Za-z]{3} ⇒ my file.txt ¦ a-b.PDF ⇏ file.jpeg ¦ .txt
(?!\.{1,2}$)[^/\0]{1,255} ⇒ a ¦ ... ¦ .bashrc ⇏ . ¦ .. ¦ a/b
(?:[^/]+/)*(?!.*\.tmp$)[^/]+ ⇒ a/b.txt ¦ x ⇏ a/b.tmp ¦ a/
\.(?:git|svn|hg)(?:/.*)? ⇒ .git ¦ .git/config ⇏ git ¦ .gitignore
[a-z]+\.v\d+\.tar\.(?:gz|bz2|xz) ⇒ pkg.v1.tar.gz ¦ a.v22.tar.xz ⇏ pkg.tar.gz ¦ pkg.v1.zip
file:///(?:[^\s%]|%[0-9a-fA-F]{2})* ⇒ file:///a%20b ¦ file:/// ⇏ file://a ¦ file:///a%2
~?(?:/[\w.]+)*/\*\*?(?:/\*\.\w+)? ⇒ ~/a/** ¦ /src/**/*.py ⇏ ~/a ¦ a/*
[drwx-][r-][w-][xs-][r-][w-][xs-][r-][w-][xt-] ⇒ drwxr-xr-x ¦ -rw-r--r-- ⇏ rwxr-xr-x ¦ drwxr-xr-y
0?[0-7]{3} ⇒ 755 ¦ 0644 ⇏ 888 ¦ 64
## logs and command lines
\[(?:DEBUG|INFO|WARN(?:ING)?|ERROR|FATAL)\] .* ⇒ [INFO] ok ¦ [WARN] x ⇏ [TRACE] x ¦ INFO ok
\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (?:DEBUG|INFO|ERROR) +\[[\w.-]+\] .+ ⇒ 2024-01-31 10:00:00,123 INFO  [main] started ¦ 2024-01-31 10:00:00,123 ERROR [a.b-c] x ⇏ 2024-01-31 10:00:00.123 INFO [main] x ¦ 2024-01-31 10:00:00,123 INFO []
(\S+) (\S+) (\S+) \[([^\]]+)\] "([^"]*)" (\d{3}) (\d+|-) ⇒ 1.2.3.4 - - [01/Jan/2024:00:00:00 +0000] "GET / HTTP/1.1" 200 12 ¦ h - u [x] "" 404 - ⇏ h - [x] "" 404 - ¦ h - u [x] "" 40 -
<\d{1,3}>\w{3} [ \d]\d \d\d:\d\d:\d\d \S+ [^:]+: .* ⇒ <34>Oct 11 22:14:15 host su: failed ¦ <1>Jan  1 00:00:00 h a[1]: b ⇏ Oct 11 22:14:15 host su: x ¦ <34>Oct 11 22:14:15 host su
\s+at [\w.$]+\([\w]+\.java:\d+\) ⇒ 	at a.b.C.d(C.java:10) ¦     at x.Y$1.z(Y.java:1) ⇏ at a.b(C.java:1) ¦     at a.b.C.d(Native)
Traceback \(most recent call last\):\n(?:  .*\n)+\w+(?:Error|Exception): .* ⇒ Traceback (most recent call last):␤  File "x"␤ValueError: y ¦ Traceback (most recent call last):␤  a␤  b␤KeyError: k ⇏ Traceback: ¦ ValueError: y
(?:level|lvl)=(?:info|error) msg="(?:[^"\\]|\\.)*"(?: \w+=\S+)* ⇒ level=info msg="a" k=v ¦ lvl=error msg="" ⇏ level=warn msg="a" ¦ level=info msg=a
(?:(?:\d+|\*)(?:/\d+)?(?:,|-)?)+(?: (?:\*|\d+)(?:/\d+)?){4} ⇒ */5 * * * * ¦ 0 0 1 1 0 ⇏ * * * * ¦ a * * * *
(?:(?:[0-5]?\d|\*)(?:-[0-5]?\d)?(?:/\d+)?)(?:,(?:[0-5]?\d)(?:-[0-5]?\d)?)* (?:\*|1?\d|2[0-3]) (?:\*|[12]?\d|3[01]) (?:\*|1[0-2]|[1-9]) (?:\*|[0-7]) ⇒ 0,30 8 * * 1 ¦ */15 * * * * ⇏ 60 * * * * ¦ 0 24 * * *
@(?:yearly|monthly|weekly|daily|hourly|reboot) ⇒ @daily ¦ @reboot ⇏ daily ¦ @noon
--[a-z][a-z0-9-]*(?:=(?:"[^"]*"|\S+))? ⇒ --dry-run ¦ --name="a b" ⇏ -x ¦ --Name
-[a-zA-Z]+(?: -[a-zA-Z]+)* ⇒ -xvf ¦ -a -b ⇏ - a ¦ --a
[A-Z_]+=(?:'[^']*'|[^\s']*) ⇒ PATH=/bin ¦ A='x y' ⇏ path=/bin ¦ A='x
(?:sudo )?(?:apt|dnf|pip) install(?: -[a-z]+)*(?: [\w.=<>-]+)+ ⇒ pip install numpy==1.0 ¦ sudo apt install -y git ⇏ pip install ¦ brew install git
\d+ (?:passed|failed)(?:, \d+ (?:passed|failed|skipped))* in \d+\.\d+s ⇒ 3 passed in 0.12s ¦ 1 failed, 2 passed in 1.0s ⇏ 3 passed ¦ passed in 0.1s
\w+\.go:\d+:\d+: .+ ⇒ main.go:10:2: undefined: x ¦ a.go:1:1: b ⇏ main.go:10: x ¦ main.py:1:1: x
(?:[A-Z][a-z]+ )?(?:Error|Exception|Panic)(?:: .*)? ⇒ Error ¦ Value Error: x ⇏ error ¦ Error x
pid=\d+ tid=0x[0-9a-f]+ ⇒ pid=1 tid=0xff ¦ pid=22 tid=0x0 ⇏ pid=x tid=0x1 ¦ pid=1
## SQL
(?i)select\s+(?:\*|\w+(?:\s*,\s*\w+)*)\s+from\s+\w+(?:\s+where\s+.+)?;? ⇒ SELECT * FROM t; ¦ select a, b from t where x = 1 ⇏ select from t ¦ delete from t
(?i)insert into \w+ \(\w+(?:, ?\w+)*\) values \((?:\?|'[^']*'|\d+)(?:, ?(?:\?|'[^']*'|\d+))*\) ⇒ INSERT INTO t (a, b) VALUES (1, 'x') ¦ insert into t (a) values (?) ⇏ insert t (a) values (1) ¦ insert into t () values ()
'(?:[^']|'')*' ⇒ 'it''s' ¦ '' ⇏ 'it's' ¦ 'a
"(?:[^"]|"")+"|\[[^\]]+\]|`[^`]+` ⇒ "a b" ¦ [c d] ¦ `e` ⇏ "" ¦ a
(?i)(?:inner|left(?: outer)?|right|full|cross) join \w+(?: (?:as )?\w+)? on \w+\.\w+ ?= ?\w+\.\w+ ⇒ LEFT JOIN t a ON a.x = b.y ¦ inner join t on t.a=u.b ⇏ join t on a.b=c.d ¦ left join on a.b=c.d
(?i)(?:var)?char\(\d+\)|int(?:eger)?|numeric\(\d+(?:,\d+)?\)|timestamp(?: with time zone)? ⇒ VARCHAR(10) ¦ numeric(10,2) ¦ timestamp with time zone ⇏ char ¦ numeric()
(?i)order by \w+(?: (?:asc|desc))?(?:, ?\w+(?: (?:asc|desc))?)*(?: limit \d+)? ⇒ ORDER BY a DESC, b ¦ order by x limit 5 ⇏ order by ¦ order by x limit
--[^\n]*|/\*(?:[^*]|\*(?!/))*\*/ ⇒ -- x ¦ /* a*b */ ¦ /***/ ⇏ - x ¦ /* a */ b */
(?i)\bnull\b|\bdefault\b|\d+(?:\.\d+)? ⇒ NULL ¦ 1.5 ⇏ nulls ¦ 1.
x'(?:[0-9a-fA-F]{2})*' ⇒ x'' ¦ x'00fF' ⇏ x'0' ¦ X'00'
:\w+|\?|@\w+|\$\d+ ⇒ :id ¦ ? ¦ $1 ⇏ $a ¦ :
## CSS and markup
#(?:[0-9a-fA-F]{3,4}){1,2} ⇒ #fff ¦ #00FF00 ¦ #12345678 ⇏ #ff ¦ fff ¦ #fffff
rgba?\(\s*(?:\d{1,3}%?\s*,\s*){2}\d{1,3}%?(?:\s*,\s*(?:0|1|0?\.\d+))?\s*\) ⇒ rgb(1, 2, 3) ¦ rgba(255,255,255,0.5) ⇏ rgb(1,2) ¦ rgba(1,2,3,2)
hsl\(\d{1,3}(?:deg)?, ?\d{1,3}%, ?\d{1,3}%\) ⇒ hsl(120, 50%, 50%) ¦ hsl(0deg,0%,0%) ⇏ hsl(120,50,50) ¦ hsl()
-?(?:\d+|\d*\.\d+)(?:px|em|rem|vh|vw|%) ⇒ 1.5em ¦ -10px ¦ .5% ⇏ 10 ¦ px ¦ 1.px
[a-z-]+\s*:\s*[^;{}]+; ⇒ color: red; ¦ margin:0 auto; ⇏ color red; ¦ color: red
[.#][a-zA-Z_-][\w-]*(?:::?[a-z-]+(?:\(\w+\))?)? ⇒ .btn:hover ¦ #main ¦ .x:nth-child(2) ⇏ btn ¦ .1x
@media \((?:min|max)-width: ?\d+px\) ⇒ @media (min-width: 600px) ¦ @media (max-width:1px) ⇏ @media min-width: 1px ¦ @media (width: 1px)
#{1,6} .+ ⇒ # Title ¦ ###### x ⇏ ####### x ¦ #x
!?\[[^\]]*\]\([^)\s]+(?: "[^"]*")?\) ⇒ [a](b) ¦ ![x](y "t") ⇏ [a] (b) ¦ [a]()
(?:\*\*|__)(?=\S).+?(?:\*\*|__) ⇒ **a** ¦ __b c__ ⇏ ** a** ¦ **a
\|(?: ?:?-+:? ?\|)+ ⇒ |---|:-:| ¦ | - | ⇏ --- ¦ |a|
(?:- \[[ x]\] .+\n?)+ ⇒ - [ ] a ¦ - [x] a␤- [ ] b␤ ⇏ - [y] a ¦ [ ] a
```\w*\n(?:(?!```)[\s\S])*``` ⇒ ```py␤x = 1␤``` ¦ ```␤``` ⇏ ```py x``` ¦ ```␤a``` b```
\\(?:begin|end)\{[a-z]+\*?\} ⇒ \begin{align*} ¦ \end{x} ⇏ \begin{} ¦ begin{x}
\$[^$]+\$ ⇒ $x^2$ ¦ $a b$ ⇏ $$ ¦ $a
<(\w+)>[^<]*</\w+> ⇒ <b>x</b> ¦ <b>x</i> ⇏ <b>x ¦ <b><i></b>
## names, words and sentences
[A-Z][a-z]+(?: [A-Z][a-z]+)+ ⇒ Ada Lovelace ¦ Jean Luc Picard ⇏ ada lovelace ¦ Ada
(?:Dr|Mr|Mrs|Ms|Prof)\. [A-Z]\w+ ⇒ Dr. Who ¦ Ms. Bjørn ⇏ Dr Who ¦ Mr. x
[A-Z]\.(?:[A-Z]\.)* [A-Z][a-z]+ ⇒ J.R.R. Tolkien ¦ C. Darwin ⇏ JRR Tolkien ¦ J. tolkien
[A-Z][^.!?]*[.!?] ⇒ Hello there. ¦ Why? ⇏ hello. ¦ No end
(?:\w+ ){0,9}\w+[.] ⇒ One two. ¦ a. ⇏ One  two. ¦ a b c d e f g h i j k.
\w+(?:'\w+)?(?:-\w+)* ⇒ don't ¦ well-known ¦ naïve ⇏ -a ¦ a'
(?:yes|no|maybe) ⇒ yes ¦ maybe ⇏ Yes ¦ y
(?i:yes|no) ⇒ YES ¦ nO ⇏ y ¦ noo
\b[Tt]he\b.* ⇒ the end ¦ The ⇏ then ¦ a the
.*\bcat\b.* ⇒ a cat sat ¦ cat ⇏ concatenate ¦ cats
.*\Bcat\B.* ⇒ concatenate ¦ xcatx ⇏ cat ¦ cats
(?!.*\b(?:foo|bar)\b).+ ⇒ food ¦ baz ⇏ a foo b ¦ bar
(?=.*\bone\b)(?=.*\btwo\b).* ⇒ two and one ¦ one two ⇏ one ¦ onetwo
(?=.*[A-Z])(?=.*[a-z])(?=.*\d)(?=.*[^\w\s]).{8,32} ⇒ Passw0rd! ¦ aB3$aB3$ ⇏ password ¦ Passw0rd ¦ aB3$
(?=[^a-z]*[a-z])(?=\D*\d)[a-z0-9]{4,8} ⇒ abc1 ¦ 1234567a ⇏ abcd ¦ 1234 ¦ ab1
(?:(?!aa|bb|cc)[abc])* ⇒ abcabc ¦ ∅ ⇏ aab ¦ abcc
[^aeiou\W\d_]+ ⇒ rhythm ¦ xyz ⇏ hello ¦ x1
(?:A|B|C|D)(?:,(?:A|B|C|D))* ⇒ A ¦ A,C,D ⇏ A, ¦ E
(?:The answer is )?(?:\()?[A-E](?:\))?\.? ⇒ B ¦ The answer is (C). ⇏ F ¦ The answer is
\d+\. .+(?:\n\d+\. .+)* ⇒ 1. a␤2. b ¦ 1. x ⇏ 1.a ¦ 1. a␤b
(?:- .+\n)+ ⇒ - a␤ ¦ - a␤- b␤ ⇏ - a ¦ a␤
Q: .+\nA: .+ ⇒ Q: a␤A: b ¦ Q: ?␤A: ! ⇏ Q: a A: b ¦ Q: a␤
(?s)<think>.*?</think>\n?.+ ⇒ <think>a␤b</think>␤x ¦ <think></think>y ⇏ <think>a x ¦ <think></think>
Thought: [^\n]+\nAction: \w+\[[^\]\n]*\]\n? ⇒ Thought: x␤Action: Search[y] ¦ Thought: a␤Action: Finish[]␤ ⇏ Thought: x ¦ Action: Search[y]
(?m)^\w+$\n^\d+$ ⇒ abc␤123 ¦ _␤0 ⇏ abc 123 ¦ abc␤x
(?m)(?:^#.*$\n?)+ ⇒ # a␤#b ¦ #␤ ⇏ a ¦ # a␤b
[ \t]*\S(?:.*\S)?[ \t]* ⇒ a b ¦ x y z ⇏ ∅ ¦ a␤b
\s*(?:\w+\s*,\s*)*\w+\s* ⇒ a, b ,c ¦ x ⇏ a,,b ¦ , a
(\w+)(?:\s+\w+){1,3} ⇒ a b ¦ a b c d ⇏ a ¦ a b c d e
.{0,140} ⇒ ∅ ¦ a tweet ⇏ a␤b ¦ ␤
[^\n]{1,80}(?:\n[^\n]{1,80}){0,2} ⇒ a ¦ a␤b␤c ⇏ ∅ ¦ a␤b␤c␤d
## Unicode
[а-яё]+(?: [а-яё]+)* ⇒ привет мир ¦ ёж ⇏ hello ¦ Привет
[α-ωά-ώ]+ ⇒ λόγος ¦ αβγ ⇏ logos ¦ ΑΒΓ
[\u4e00-\u9fff]{2,4} ⇒ 中文 ¦ 四个汉字 ⇏ 字 ¦ ab
[\u3040-\u309f\u30a0-\u30ff]+ ⇒ ひらがな ¦ カタカナ ⇏ 漢字 ¦ kana
[가-힣]+ ⇒ 한국어 ¦ 가 ⇏ ㄱ ¦ abc
[\u0600-\u06ff\s]+ ⇒ مرحبا ¦ سلام عليكم ⇏ hello ¦ שלום
[א-ת]+ ⇒ שלום ¦ א ⇏ سلام ¦ s
[\u0900-\u097f]+ ⇒ नमस्ते ¦ हिन्दी ⇏ namaste ¦ বাংলা
[ก-๙]+ ⇒ สวัสดี ¦ ๑๒ ⇏ sawasdee ¦ ສ
[A-Za-zÀ-ÖØ-öø-ÿ]+ ⇒ Müller ¦ façade ⇏ x×y ¦ 1
[\U0001f600-\U0001f64f]+ ⇒ 😀 ¦ 😀🙏 ⇏ :) ¦ 🚀
\w+ ⇒ naïve ¦ 日本語 ¦ ٣ ⇏ a b ¦ -
(?a)\w+ ⇒ naive ¦ x_1 ⇏ naïve ¦ 日
\d+ ⇒ 123 ¦ ٣٤ ¦ १२ ⇏ ½ ¦ Ⅷ
(?a)\w(?u:\w) ⇒ aé ¦ ab ⇏ éa ¦ a-
(?a:\d+) ⇒ 123 ¦ 0 ⇏ ٣ ¦ a
a\s+b ⇒ a b ¦ a␤b ¦ a b ⇏ ab ¦ a_b
(?i)straße ⇒ STRAßE ¦ straẞe ⇏ STRASSE ¦ strabe
(?i)ΣΊΣΥΦΟΣ ⇒ σίσυφος ¦ ΣΊΣΥΦΟΣ ⇏ sisyphos ¦ σίσυφο
(?i)привет ⇒ ПРИВЕТ ¦ Привет ⇏ привёт ¦ privet
«[^»]*» ⇒ «a» ¦ «» ⇏ "a" ¦ «a
[“”"][^“”"]*[“”"] ⇒ “a” ¦ "b" ⇏ 'a' ¦ “a
\N{EURO SIGN}\d+ ⇒ €5 ¦ €10 ⇏ $5 ¦ €
\u20ac|\xa3|\U0001d11e ⇒ € ¦ £ ¦ 𝄞 ⇏ ¥ ¦ 𝄢
[^\x00-\x7f]+ ⇒ é日𝄞 ¦ ü ⇏ a ¦ éa
[\x20-\x7e]* ⇒ Hello ~ ¦ ∅ ⇏ é ¦ a␤
.. ⇒ 日本 ¦ é𝄞 ⇏ 日 ¦ abc
(?:☀|🌧|⛅)\ufe0f? ⇒ ☀ ¦ ☀️ ⇏ 🌞 ¦ ☁
[①-⑳] ⇒ ① ¦ ⑳ ⇏ 1 ¦ ㉑
[₀-₉⁰-⁹]+ ⇒ ₀₁ ¦ ⁴ ⇏ 0 ¦ x
## chemistry, genetics, music, games
(?:[A-Z][a-z]?\d*)+ ⇒ H2O ¦ C6H12O6 ¦ NaCl ⇏ h2o ¦ 2H
[ACGT]+ ⇒ GATTACA ¦ A ⇏ GAUU ¦ acgt
ATG(?:[ACGT]{3})*?(?:TAA|TAG|TGA) ⇒ ATGTAA ¦ ATGAAATAG ⇏ ATGAATAG ¦ TAA
[A-G](?:#|b)?(?:m|maj|min|dim|aug)?7? ⇒ C ¦ F#m7 ¦ Bbmaj7 ⇏ H ¦ C##
(?:[KQRBN]?[a-h]?[1-8]?x?[a-h][1-8](?:=[QRBN])?[+#]?|O-O(?:-O)?) ⇒ e4 ¦ Nxf3+ ¦ O-O-O ¦ e8=Q# ⇏ i4 ¦ e9 ¦ OO
(?:[pnbrqkPNBRQK1-8]{1,8}/){7}[pnbrqkPNBRQK1-8]{1,8} [wb] (?:-|K?Q?k?q?) (?:-|[a-h][36]) \d+ \d+ ⇒ rnbqkbnr/pppppppp/8/8/8/8/PPPPPPPP/RNBQKBNR w KQkq - 0 1 ¦ 8/8/8/8/8/8/8/K7 b - e3 3 9 ⇏ 8/8 w - - 0 1 ¦ 8/8/8/8/8/8/8/K7 x - - 0 1
(?:10|[2-9JQKA])[♠♥♦♣] ⇒ 10♠ ¦ A♥ ⇏ 11♠ ¦ A
\d+d\d+(?:[+-]\d+)? ⇒ 2d6+3 ¦ 1d20 ⇏ d6 ¦ 2d
M{0,3}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3}) ⇒ MCMXCIV ¦ XLII ¦ ∅ ⇏ IIII ¦ VX
[01]*(?:10)+ ⇒ 10 ¦ 01110 ⇏ 01 ¦ ∅
(?:0|1(?:01*0)*1)+ ⇒ 0 ¦ 11 ¦ 110 ¦ 1001 ⇏ 1 ¦ 10 ¦ 111
(?:aa)*|(?:aaa)* ⇒ ∅ ¦ aa ¦ aaa ¦ aaaa ⇏ a ¦ aaaaa
## structured text
[^,\n]*(?:,[^,\n]*){2} ⇒ a,b,c ¦ ,, ⇏ a,b ¦ a,b,c,d
(?:"(?:[^"]|"")*"|[^,"\n]*)(?:,(?:"(?:[^"]|"")*"|[^,"\n]*))* ⇒ a,"b,""c""",d ¦ ∅ ⇏ a,"b ¦ "a"b
\{"[a-z]+": ?(?:\d+|"[^"]*"|true|false|null)(?:, ?"[a-z]+": ?(?:\d+|"[^"]*"|true|false|null))*\} ⇒ {"a": 1} ¦ {"a":"x", "b": null} ⇏ {} ¦ {"a": 1,}
(?:\w+=[^;]*;?)+ ⇒ a=1;b=2 ¦ x= ⇏ a ¦ ;a=1
\[[^\]\n]+\]\n(?:\w+ *= *.*\n)* ⇒ [a]␤ ¦ [a b]␤k = v␤x=␤ ⇏ [a] ¦ []␤
(?:[\w-]+:(?: .*)?\n(?:  .*\n)*)+ ⇒ a: 1␤b:␤  - c␤ ¦ k:␤ ⇏ a ¦   b␤
(?:(?:\d{1,2}|[a-z])\) .+; ?)+ ⇒ a) x; b) y; ¦ 1) z; ⇏ a) x ¦ ab) x;
-----BEGIN [A-Z ]+-----\n(?:[A-Za-z0-9+/=]{1,64}\n)+-----END [A-Z ]+-----\n? ⇒ -----BEGIN KEY-----␤AAAA␤-----END KEY----- ¦ -----BEGIN A B-----␤x=␤y␤-----END A B-----␤ ⇏ -----BEGIN KEY-----␤-----END KEY----- ¦ BEGIN
(?:ssh-(?:rsa|ed25519)) [A-Za-z0-9+/]+=* ?\S* ⇒ ssh-rsa AAAAB3== a@b ¦ ssh-ed25519 AAAA ⇏ ssh-dsa AAAA ¦ ssh-rsa
(?:v=spf1(?: [+~?-]?(?:all|mx|a|ip4:[\d./]+|include:[\w.]+))+) ⇒ v=spf1 mx -all ¦ v=spf1 include:a.b ip4:1.2.3.0/24 ~all ⇏ v=spf1 ¦ v=spf2 mx
(?:INT|FLOAT|TEXT)\[(?:\d*)\](?:\[\d*\])* ⇒ INT[] ¦ TEXT[3][4] ⇏ INT ¦ INT[a]
\(\s*(?:[a-z]+\s*:\s*[a-z]+\s*(?:,\s*(?=[a-z]))?)*\) ⇒ () ¦ (a: b, c:d) ⇏ (a) ¦ (a: b,)
(?:(?:true|false)\s+(?:and|or)\s+)*(?:true|false) ⇒ true ¦ true and false or true ⇏ true and ¦ True
(?:[01]{4} )*[01]{4} ⇒ 0101 ¦ 0000 1111 ⇏ 01010 ¦ 0101  0101
[0-9A-Fa-f]{2}(?: [0-9A-Fa-f]{2}){0,15} ⇒ 00 ff 1A ¦ aa ⇏ 00ff ¦ 0
(?:\.[a-z]+\(\))+;? ⇒ .a().b(); ¦ .x() ⇏ a() ¦ .a
([a-z])([a-z])? ⇒ a ¦ zz ⇏ ∅ ¦ abc
(?:a(?=b)|b(?=c)|c)+ ⇒ abc ¦ c ⇏ ab ¦ acb
(?:x(?!y)|y)* ⇒ xxx ¦ yyx ⇏ xy ¦ xxyx
a++b ⇒ ab ¦ aaab ⇏ b ¦ aaa
(?:ab)*+(?:ac|x) ⇒ abx ¦ ababac ⇏ abab ¦ abacx
[0-9]?+5 ⇒ 55 ¦ 15 ⇏ 5 ¦ 1
(?>foo|bar)+ ⇒ foobar ¦ foo ⇏ fo ¦ ∅
a{2,3}+[ab] ⇒ aaaa ¦ aab ⇏ aaa ¦ aa
## anchors
^a|bc$ ⇒ a ¦ bc ⇏ ab ¦ abc
^(?:a|^b)$ ⇒ a ¦ b ⇏ ab ¦ ∅
(?:^a|b$)* ⇒ a ¦ ab ¦ ∅ ⇏ ba ¦ aa
a$\n? ⇒ a ¦ a␤ ⇏ a␤␤ ¦ b
\A\d+\Z ⇒ 1 ¦ 22 ⇏ a ¦ 1␤
x*$ ⇒ ∅ ¦ xx ⇏ y ¦ xy
## counted, larger
[a-z]{1,5000} ⇒ a ¦ zebra ⇏ ∅ ¦ A
\w{0,2000} ⇒ ∅ ¦ naïve_1 ⇏ a b ¦ -
(ab|cd){3,10000} ⇒ ababab ¦ abcdabcd ⇏ abab ¦ ababa
\d{1,3}(,\d{3}){0,1000} ⇒ 1 ¦ 12,345,678 ⇏ 1234 ¦ 1,23
.{1,10000}X ⇒ aX ¦ XX ¦ XaX ⇏ X ¦ ab
[a-z]{1,5000}@[a-z]{2,5000} ⇒ a@bc ¦ ab@cde ⇏ a@b ¦ @ab
[a-z]{1,300}[0-9]{1,300} ⇒ a1 ¦ abc123 ⇏ abc ¦ 123
(?:[a-z]{2,300};)+ ⇒ ab; ¦ ab;cde; ⇏ a; ¦ ab
(?:\w+\s?){1,500} ⇒ a b c ¦ abc ⇏ a  b ¦ ∅
''')

REFUSED = _rows(r"""
## lookbehind
[a-z0-9-]{1,63}(?<!-) ⇒ a-b ¦ x1 ⇏ a- ¦ -
(?!-)[A-Za-z0-9-]{1,63}(?<!-)(?:\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))* ⇒ a.b-c ¦ localhost ⇏ -a.b ¦ a-.b
[\w.-]+(?<!\.tmp) ⇒ a.txt ¦ tmp ⇏ a.tmp ¦ a b
\d+(?<=[05]) ⇒ 10 ¦ 125 ⇏ 12 ¦ 5a
"[^"]*(?<!\\)" ⇒ "a b" ¦ "" ⇏ "a\" ¦ "a
(?:[a-z]+(?<!the) ?)+ ⇒ a cat ¦ then ⇏ the ¦ a the
[+-]?\d{1,3}(?:,?(?<=,)\d{3}|(?<!,)\d)* ⇒ 1,234 ¦ 123456 ⇏ 1,23 ¦ ,123
## backreferences
(["'])(?:(?!\1).)*\1 ⇒ "it's" ¦ '' ⇏ "a' ¦ 'a'b'
<([a-z]+)>[^<]*</\1> ⇒ <b>x</b> ¦ <i></i> ⇏ <b>x</i> ¦ <b>
\d{4}([-/.])\d{2}\1\d{2} ⇒ 2024-01-31 ¦ 2024.01.31 ⇏ 2024-01/31 ¦ 20240131
(?P<word>\w+) (?P=word) ⇒ the the ¦ a a ⇏ the a ¦ the
(\d)\1{3} ⇒ 1111 ¦ 0000 ⇏ 1112 ¦ 111
(.)(.).?\2\1 ⇒ abcba ¦ abba ⇏ abcab ¦ ab
(`{3,})\w*\n(?s:.*?)\n\1 ⇒ ```py␤x␤``` ¦ ````␤```␤```` ⇏ ````␤x␤``` ¦ ```
\$(\w*)\$.*\$\1\$ ⇒ $a$x$a$ ¦ $$y$$ ⇏ $a$x$b$ ¦ $a$
## conditional groups
(<)?\w+@\w+\.\w+(?(1)>) ⇒ <a@b.c> ¦ a@b.c ⇏ <a@b.c ¦ a@b.c>
(\()?\d{3}(?(1)\) ?|-)\d{4} ⇒ (415) 5552 ¦ 415-5552 ⇏ (415-5552 ¦ 415)5552
(?P<q>")?[a-z]+(?(q)") ⇒ "a" ¦ abc ⇏ "a ¦ a"
## atomic groups and possessive repeats of variable length
"(?>[^"\\]+|\\.)*" ⇒ "a\"b" ¦ "" ⇏ "a\" ¦ a
"(?:[^"\\]|\\.)*+" ⇒ "a" ¦ "\\" ⇏ "\" ¦ "a"b"
(?>\d+(?:\.\d+)?)(?:px|em) ⇒ 1.5em ¦ 10px ⇏ 1. ¦ px
(?>[a-z]+)(?>\d*) ⇒ abc1 ¦ a ⇏ 1 ¦ a1b
""")

BEYOND_PYTHON = _rows(r"""
\p{L}+ ⇒ abcÄß日 ¦ я ⇏ a1 ¦ ∅
\p{Lu}\p{Ll}* ⇒ Ab ¦ Éa ⇏ ab ¦ A1
\pL\pN? ⇒ a1 ¦ é٣ ⇏ 1 ¦ a-
\P{L}+ ⇒ 123 ¦ -_- ⇏ a ¦ 1a
\PN ⇒ a ¦ - ⇏ 1 ¦ ٣
\p{^Lu} ⇒ a ¦ 1 ⇏ A ¦ É
[\p{L}\p{Nd}_-]+ ⇒ naïve-1 ¦ x_٣ ⇏ a b ¦ !
[^\p{L}\s]+ ⇒ 1!? ¦ 😀 ⇏ a ¦ 1 2
\p{Letter}\p{Decimal_Number} ⇒ a1 ¦ é٣ ⇏ aa ¦ 11
\p{gc=Sc}\d+ ⇒ €5 ¦ $1 ⇏ 5 ¦ +5
\p{General_Category=Uppercase_Letter} ⇒ A ¦ Ω ⇏ a ¦ 1
\p{Script=Greek}+ ⇒ λόγος ¦ ΑΒΓ ⇏ logos ¦ λ1
\p{Greek}+ ⇒ αω ¦ Ω ⇏ a ¦ я
\p{sc=Cyrl}+ ⇒ привет ¦ Я ⇏ privet ¦ α
\p{Han}+|\p{Hiragana}+|\p{Katakana}+ ⇒ 漢字 ¦ ひら ¦ カタ ⇏ 漢か ¦ a
\p{Latin}+ ⇒ aé ¦ Ž ⇏ я ¦ 1
\p{Hangul}+ ⇒ 한국어 ¦ ㄱ ⇏ 日 ¦ a
\p{Arabic}+ ⇒ مرحبا ¦ س ⇏ a ¦ ש
\p{ASCII}* ⇒ ab~ ¦ ∅ ⇏ é ¦ aé
\p{Any} ⇒ a ¦ 𝄞 ⇏ ∅ ¦ ab
\p{Punctuation}+ ⇒ !? ¦ « ⇏ a ¦ $
\p{Sm} ⇒ + ¦ ∑ ⇏ $ ¦ a
(?i)\p{Lu} ⇒ a ¦ A ⇏ 1 ¦ -
\u{1F600}\u{e9}? ⇒ 😀 ¦ 😀é ⇏ é ¦ 😁
\x{41}\x{1f600} ⇒ A😀 ⇏ A ¦ 😀
a\cJb ⇒ a␤b ⇏ ab ¦ aJb
[\cA-\cZ] ⇒ ␤ ⇏ a ¦ Z
(?<year>\d{4})-(?<month>\d\d) ⇒ 2024-01 ¦ 1999-12 ⇏ 2024-1 ¦ 2024
a(?i)b|c ⇒ ab ¦ aB ¦ C ⇏ Ab ¦ AB
(a(?i)b)c ⇒ abc ¦ aBc ⇏ abC ¦ Abc
(?i)a(?-i)b ⇒ ab ¦ Ab ⇏ aB ¦ AB
\Aab\z ⇒ ab ⇏ ab␤ ¦ a
(?:\b|\B) ⇒ ∅ ⇏ a ¦ ␤
\B ⇒ ∅ ⇏ a ¦ -
""")

ECMA = _rows(r"""
^\d+$ ⇒ 1 ¦ 42 ⇏ ٣ ¦ 1␤ ¦ ∅
\d ⇒ a1b ¦ 1 ⇏ a ¦ ٣
^\w+$ ⇒ abc_1 ¦ X ⇏ é ¦ a b
^\W+$ ⇒ é- ¦ ! ⇏ a ¦ _
^\s$ ⇒ ␤ ¦ ﻿ ⇏ a ¦ ab
^\S*$ ⇒ ∅ ¦ aé ⇏ a b ¦ ␤
^.$ ⇒ a ¦ 𝄞 ⇏ ␤ ¦ ab
^[a-z]{2,3}$ ⇒ ab ¦ abc ⇏ a ¦ abcd
[a-z]{2,3} ⇒ ab ¦ 1abcde2 ⇏ a ¦ A1
^a|b$ ⇒ ax ¦ xb ¦ ab ⇏ xa ¦ bx
a.c ⇒ abc ¦ xxa-cxx ⇏ ac ¦ a␤c
^$ ⇒ ∅ ⇏ a ¦ ␤
^[\w-.]+$ ⇒ a-b.c ¦ _ ⇏ é ¦ a b
^[^]$ ⇒ a ¦ ␤ ⇏ ∅ ¦ ab
^a[]|b$ ⇒ b ¦ ab ⇏ a ¦ bc
^\/a\-b\_$ ⇒ /a-b_ ⇏ a-b ¦ \/a-b_
^\cC$|^\cJ$ ⇒ ␤ ⇏ C ¦ c
^\u{1F600}$|^\uD83D\uDE01$ ⇒ 😀 ¦ 😁 ⇏ 😂 ¦ u
^[\uD83D\uDE00-\uD83D\uDE02]+$ ⇒ 😀😁😂 ⇏ 😃 ¦ a
^\p{Letter}cole$ ⇒ École ¦ ecole ⇏ 1cole ¦ cole
^\p{digit}+$ ⇒ 42 ¦ ৪২ ⇏ -%# ¦ a
^(?<y>\d{4})$ ⇒ 2024 ¦ 1999 ⇏ 99 ¦ 20245
^(?!interactive|name|style).+$ ⇒ other ¦ nam ⇏ name ¦ style1 ¦ ∅
^(?!.*\/)^(.*[^.]+.*)$ ⇒ a.b ¦ x ⇏ a/b ¦ ..
^(?!pattern$).*$ ⇒ patterns ¦ ∅ ⇏ pattern
^(https?://|/?.?-?(?!\w+://)\w).+\.ya?ml$ ⇒ https://a.yml ¦ foo/bar.yaml ⇏ ftp://a.yml ¦ a.txt
(?i)^abc ⇒ ABCd ¦ abc ⇏ xabc ¦ ab
\bfoo\b ⇒ a foo b ¦ éfooé ⇏ foobar ¦ fo
^[[a-z]*[-]?[a-z]*]*$ ⇒ [ab-c]] ¦ ∅ ¦ -] ⇏ 1 ¦ a-b-
^a{2,}$ ⇒ aa ¦ aaaaa ⇏ a ¦ aab
^{x}$ ⇒ {x} ⇏ x ¦ {x
""")
