"""Answers made wrong on purpose, to judge the judge: one changed digit, damage of every kind, endless repetitions."""

import random
import re

_DIGIT = re.compile(r"[0-9]")
#: What is thrown into an output: JSON's own marks, numbers, names, invisible and other-script characters.
JUNK = (
    *'{}[]":,\\\n\t\0 ', "\\u", "\\ud800", "\ud800", "\\n", '\\"', "NaN", "-Infinity", "1e999", "null", "true",
    "```json\n", "40", "-3.1", "4,000", "1.2.3", "99999999999999999999", "%", " million", "４０", "٤", "½",
    "\u200b", "\u202e", "\ufeff", "é", "😀", "Φ", "λH", "UKR", "FRA", "political", "exceed 50%", "confidence 0.97",
    "97% sure", "PLASMA", "Tulip Mania 1634–1637", "rising", "no early warning", "Vienna accord", "3 March 2031", "İ",
    "ß", "\u0301", "{}", "[[", '{"a":',
)  # fmt: skip
#: What a hostile output of any length is made of.
ENDLESS = (
    *'"{}[],:\\ 9.é', '{"', '{"a":', '{"a"}', '{"\\"', "1,", "9 ", "political 4 ", "UKR ", "Vienna ",
    "Great Depression ", "1929–1939 ", "in 1931 ", "confidence 0.97 ", "confidence ", "97% ", "sure 5 a ", "minus ",
    "tau variance prior ", "1,234", "4½", "\u200b4", "overall ", "no transition ", "key concerns ", "exceed 50% ",
    "\\u0034", "\\ud800", "```json",
)  # fmt: skip


def change_digit(text: str, pick: random.Random) -> str:
    """`text` with one of its digits 0-9 changed to another.

    Raises:
        ValueError: it has none.
    """
    places = [found.start() for found in _DIGIT.finditer(text)]
    if not places:
        raise ValueError("there is no digit to change")
    place = pick.choice(places)
    digit = pick.choice([digit for digit in "0123456789" if digit != text[place]])
    return text[:place] + digit + text[place + 1 :]


def damage(text: str, pick: random.Random) -> str:
    """`text` after one to four damages: characters lost, doubled, turned, replaced; junk; bits; nesting; fences."""
    for _ in range(pick.randint(1, 4)):
        start = pick.randrange(len(text) + 1)
        stop = min(len(text), start + pick.choice((1, 1, 2, 5, 40, 400)))
        kind = pick.randrange(10)
        if kind == 0:
            text = text[:start] + text[stop:]
        elif kind == 1:
            text = text[:stop] + text[start:]
        elif kind == 2:
            text = text[:start] + text[start:stop][::-1] + text[stop:]
        elif kind == 3:
            text = text[:start] + pick.choice(JUNK) + text[start:]
        elif kind == 4:
            text = text[:start] + pick.choice(JUNK) * pick.choice((2, 50, 2000)) + text[stop:]
        elif kind == 5:
            text = text[:start]
        elif kind == 6:  # a bit of a byte
            data = bytearray(text.encode(errors="surrogatepass"))
            if data:
                data[pick.randrange(len(data))] ^= 1 << pick.randrange(8)
            text = data.decode(errors="surrogateescape")
        elif kind == 7:
            depth = pick.choice((1, 31, 32, 33, 2000))
            text = text[:start] + '{"a":' * depth + text[start:stop] + "}" * depth + text[stop:]
        elif kind == 8:
            text = (
                text[:start]
                + "".join(chr(pick.choice((pick.randrange(128), pick.randrange(0x110000)))) for _ in "12345")
                + text[stop:]
            )
        else:
            text = (
                pick.choice(("```json\n", "Here: ", "[", '"', "\ufeff", "{"))
                + text
                + pick.choice(("\n```", " Done.", "]", '"', "}", ""))
            )
    return text


def endless(unit: str, size: int, key: str | None = None) -> str:
    """`unit` over and over, `size` characters; with a key: as its text, in an object (JSON, if the unit allows)."""
    text = (unit * (size // len(unit) + 1))[:size]
    return text if key is None else f'{{"{key}":"{text}"}}'
