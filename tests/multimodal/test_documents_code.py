"""Source code: classes and functions are sections, indentation stays; odd lines cost little time."""

from __future__ import annotations

import time

import pytest

from hearth.multimodal.documents import read_document
from hearth.multimodal.kinds import identify
from hearth.multimodal.passages import split_passages

PYTHON = '''#!/usr/bin/env python3
"""A module for the printer, class of 2026."""
import os

LIMIT = 3


class Printer:
    """Prints. A function that def does not mean."""

    # resets it
    @staticmethod
    def reset(seconds: int) -> None:
        if seconds > LIMIT:
            blink()

    async def show(self) -> None:
        def inner() -> None:
            pass


def blink() -> int:
    return 1
'''


def sections(code: str, name: str) -> list[str]:
    return [page.section for page in read_document(code.encode(), name).pages]


def test_python() -> None:
    read = read_document(PYTHON.encode(), "printer.py")
    assert read.title == "printer.py"
    assert read.mime == "text/x-python"
    assert [page.section for page in read.pages] == [
        "",
        "Printer",
        "Printer › reset",
        "Printer › show",
        "Printer › show › inner",
        "blink",
    ]
    reset = read.pages[2].text
    assert reset.startswith("    # resets it\n    @staticmethod\n    def reset(")
    assert "\n            blink()" in reset


def test_indentation_is_kept_in_passages() -> None:
    body = "\n".join(f"        value_{n} = compute(value_{n}, {n})" for n in range(60))
    read = read_document(f"class A:\n    def long(self):\n{body}\n".encode(), "a.py")
    passages = split_passages(read)
    assert len(passages) > 3
    for passage in passages:
        assert read.text[passage.start : passage.end] == passage.text
        if passage.section == "A › long":
            assert all(line.startswith("    ") for line in passage.text.split("\n"))


@pytest.mark.parametrize(
    ("name", "code", "expected"),
    [
        (
            "a.js",
            "export default class A {\n  go(x) {\n    if (x) { y(x); }\n  }\n}\nconst f = async (a) => {\n};",
            ["A", "A › go", "f"],
        ),
        ("a.ts", "export interface B {\n}\nexport function g<T>(x: T) {\n}\ntype C = number;", ["B", "g", "C"]),
        (
            "a.c",
            "struct point { int x; };\nstruct point *middle(int n) {\n  for (;;) {\n  }\n  call(n);\n}",
            ["", "middle"],
        ),
        ("a.cpp", "namespace n {\nvoid A::go(int x) const {\n  while (x) {\n  }\n}\n}", ["n", "A::go"]),
        (
            "A.java",
            "public class A {\n    public int add(int a, int b) {\n        return a;\n    }\n}",
            ["A", "A › add"],
        ),
        ("a.go", "package main\n\nfunc (p *Printer) Reset(n int) {\n}\n\ntype Lamp struct {\n}", ["", "Reset", "Lamp"]),
        ("a.rs", "pub(crate) fn go() {}\nimpl<T> Lamp for Bulb {\n    fn on(&self) {}\n}", ["go", "Lamp", "Lamp › on"]),
        ("a.rb", "module M\n  class A\n    def self.go\n    end\n  end\nend", ["M", "M › A", "M › A › self.go"]),
        ("a.sql", "CREATE TABLE IF NOT EXISTS parts (\n  id INT\n);\ncreate view v as select 1;", ["parts", "v"]),
        ("a.sh", "set -e\nreset() {\n  echo 1\n}\nfunction blink {\n  :\n}", ["", "reset", "blink"]),
        ("a.php", "<?php\nclass A {\n    public function go($x) {\n    }\n}", ["", "A", "A › go"]),
        ("a.kt", "data class A(val x: Int)\nsuspend fun go() {\n}", ["A", "go"]),
        ("a.lua", "local function go()\nend", ["go"]),
        ("a.r", "go <- function(x) {\n}", ["go"]),
    ],
)
def test_languages(name: str, code: str, expected: list[str]) -> None:
    assert sections(code, name) == expected


def test_the_first_line_or_the_name_tells_the_language() -> None:
    assert identify(b"#!/bin/bash\necho 1", "run").mime == "text/x-shell"
    assert identify(b"#!/usr/bin/env python3\n", "run").mime == "text/x-python"
    assert identify(b"<?php echo 1;", "page").mime == "text/x-php"
    assert identify(b"def f(): pass", "notes.txt").mime == "text/plain"
    assert identify(b"<!doctype html><p>x", "a.js").mime == "text/html"
    assert identify(b"%PDF-1.4", "a.py").mime == "application/pdf"


@pytest.mark.parametrize(
    "line",
    [
        "x" * 5_000_000,
        "public " * 40,
        "a<" * 140,
        "const " * 48 + "=",
        "x:" * 140 + "=",
        "a b " * 70 + "(",
        "fn (" * 70,
    ],
    ids=lambda line: line[:6],
)
def test_lines_that_declare_nothing_cost_little(line: str) -> None:
    before = time.process_time()
    for name in ("a.js", "a.cpp", "a.rs", "a.sql"):
        assert read_document(((line + "\n") * max(1, 60_000 // len(line))).encode(), name).text
    assert time.process_time() - before < 8
