#!/usr/bin/env python3
"""Prints the tables at the end of clip.c. Usage: python3.8 tools/unicode_tables.py unicode_tables.json

A development tool: nothing that flis builds or runs needs it. It needs Python 3.8, which the authors' environment uses:
its str.lower() and unicodedata are Unicode 12.1. The character classes of the pattern come from the JSON file, because
the `regex` module of that environment has Unicode 15.0. HTML entities come from html.entities.html5.
"""
import html
import html.entities
import json
import sys
import unicodedata

ALL = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
WIDTH = 118


def ranges(wanted):
    out = []
    for c in wanted:
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def wrap(items):
    line = "   "
    for item in items:
        if len(line) + 1 + len(item) > WIDTH:
            print(line)
            line = "   "
        line += " " + item
    print(line)


def table(comment, kind, name, rows):
    print("\n/* %s */" % comment)
    print("static const %s %s[] = {" % (kind, name))
    wrap(",".join("0x%x" % v if v > 9 else "%d" % v for v in row) + "," for row in rows)
    print("};")


def ends_final(text):
    return text.lower().endswith("\u03c2")


def pattern_tables(facts):
    table("\\p{L} under the pattern, ranges first, last. regex 2022.10.31, Unicode 15.0.",
          "uint32_t", "letters", facts["L"])
    table("\\p{N} under the pattern, ranges first, last. The same.", "uint32_t", "numbers", facts["N"])
    table("\\s, ranges first, last. The same.", "uint32_t", "spaces", facts["S"])
    digits = [c for c in ALL if unicodedata.category(chr(c)) == "Nd"]
    table("\\d of Python's re: general category Nd, ranges first, last. Unicode 12.1 (unicodedata).",
          "uint32_t", "digits", ranges(digits))


def case_tables(facts):
    rows = facts["lower12_runs"]
    lower = {c: c + delta for first, last, stride, delta in rows for c in range(first, last + 1, stride)}
    for c in ALL:
        if c != 0x130 and chr(lower.get(c, c)) != chr(c).lower():
            sys.exit("U+%04X: the JSON file and str.lower() disagree" % c)
    table("str.lower() of one code point: runs first, last, stride, difference; U+0130 stands apart. Unicode 12.1.",
          "int32_t", "lower_runs", rows)
    ignored = [c for c in ALL if ends_final("A" + chr(c) + "\u03a3") and not ends_final("1" + chr(c) + "\u03a3")]
    cased = [c for c in ALL if ends_final("1" + chr(c) + "\u03a3")]
    table("Case_Ignorable: what final sigma looks past; ranges first, last. Unicode 12.1 (str.lower()).",
          "uint32_t", "ignorable", ranges(ignored))
    table("Cased and not Case_Ignorable, ranges first, last. The same.", "uint32_t", "cased", ranges(cased))


def normal_tables():
    runs = []
    for c in ALL:
        k = unicodedata.combining(chr(c))
        if k and runs and runs[-1][1] == c - 1 and runs[-1][2] == k:
            runs[-1][1] = c
        elif k:
            runs.append([c, c, k])
    table("Canonical_Combining_Class where it is not 0: runs first, last, class. Unicode 12.1 (unicodedata).",
          "uint32_t", "combining", runs)
    rows = []
    for c in ALL:
        parts = unicodedata.decomposition(chr(c)).split()
        if parts and not parts[0].startswith("<"):
            rows.append([c] + [int(p, 16) for p in parts] + [0] * (2 - len(parts)))
    second = {row[2] for row in rows}
    if second & {row[0] for row in rows}:
        sys.exit("a second code point decomposes again, which clip.c's decompose() does not support")
    table("Canonical decompositions of one step: code point, first, second (0: none). Unicode 12.1 (unicodedata).",
          "uint32_t", "canonical", rows)
    order = [i for i, (c, a, b) in enumerate(rows) if b and unicodedata.normalize("NFC", chr(a) + chr(b)) == chr(c)]
    order.sort(key=lambda i: (rows[i][1], rows[i][2]))
    table("The rows of canonical[] that compose (not the exclusions), by first, then second.", "uint16_t", "composing",
          [[i] for i in order])


def width_table():
    rows = []
    for c in range(0xFF5F, 0xFFEF):
        text = unicodedata.normalize("NFKC", chr(c))
        if len(text) > 1 and c != 0xFFE3:
            sys.exit("U+%04X: NFKC has more than one code point" % c)
        rows.append([0 if text == chr(c) else ord(text[0])])
    table("NFKC of U+FF5F to U+FFEE, 0: unchanged (U+FFE3 is followed by U+0304). Unicode 12.1 (unicodedata).",
          "uint16_t", "narrow", rows)


def codes(text):
    return ",".join("%x" % ord(c) for c in text)


def entity(name, value):
    """`rest value;`, `rest value^upper;` or `rest value!;`: ftfy 6.1.1 adds the names in capitals."""
    text = name[1:-1] + " " + codes(value)
    if name == name.lower():
        capitals = "&" + name.upper()
        if html.unescape(capitals) != capitals:
            text += "!"
        elif value.upper() != value:
            text += "^" + codes(value.upper())
    return text + ";"


def entity_table():
    print("\n/* HTML's named entities by first letter, A-Z then a-z: the rest of the name, a space, the code points in")
    print("   hexadecimal; after ^ those of the name in capitals, where they differ; ! where capitals do not stand for")
    print("   it. Python's html.entities.html5, and ftfy 6.1.1's rule for capitals. */")
    print("static const char *const entities[52] = {")
    known = {k: v for k, v in html.entities.html5.items() if k.endswith(";")}
    for first in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz":
        line = ""
        rows = [entity(name, known[name]) for name in sorted(known) if name[0] == first]
        if not rows or sum(map(len, rows)) > 4095:
            sys.exit("letter %s: wanted a string literal of 1 to 4095 characters (C99's guarantee)" % first)
        for row in rows:
            if len(line) + len(row) > WIDTH - 8:
                print('    "%s"' % line)
                line = ""
            line += row
        print('    "%s",' % line)
    print("};")


def main():
    if unicodedata.unidata_version != "12.1.0" or len(sys.argv) != 2:
        sys.exit("usage: python3.8 unicode_tables.py unicode_tables.json   (Python 3.8 has Unicode 12.1.0)")
    with open(sys.argv[1]) as f:
        facts = json.load(f)
    print("/* ---- Tables, printed by tools/unicode_tables.py %s */" % ("-" * 66))
    pattern_tables(facts)
    case_tables(facts)
    normal_tables()
    width_table()
    entity_table()


main()
