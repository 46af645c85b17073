"""Sums that the pocket model is to do: whole numbers up to 100, in words or signs."""

from __future__ import annotations

import random

from training.chats import Chat, Message
from training.world import as_spoken, varied

LIMIT = 100
FIVE = 5  # nobody is asked for more times than that at once
_SIGNS = {"plus": "+", "minus": "-", "times": "×", "divided by": "/"}
_TRAINED = (
    "What is {a} {op} {b}?", "What's {a} {op} {b}?", "How much is {a} {op} {b}?", "{a} {op} {b}?", "{a} {op} {b}",
    "Calculate {a} {op} {b}.", "Tell me {a} {op} {b}.", "{a} {sign} {b}", "{a} {sign} {b} = ?",
    "What is {a} {sign} {b}?",
    "Please work out {a} {op} {b}.", "What does {a} {op} {b} give?",
)  # fmt: skip
_HELD_OUT = (
    "Can you tell me how much {a} {op} {b} is?",
    "Please calculate {a} {op} {b}.",
    "What do you get for {a} {op} {b}?",
)


def numbers(rng: random.Random, op: str) -> tuple[int, int, int]:
    """Two numbers and the result, all within 0..LIMIT."""
    if op == "plus":
        total = rng.randint(0, LIMIT)
        first = rng.randint(0, total)
        return first, total - first, total
    if op == "minus":
        first = rng.randint(0, LIMIT)
        second = rng.randint(0, first)
        return first, second, first - second
    first = rng.randint(1, 20)
    second = rng.randint(1, LIMIT // first)
    if rng.random() < 0.5:
        first, second = second, first
    return (first, second, first * second) if op == "times" else (first * second, first, second)


def kept_for_evaluation(first: int, op: str, second: int) -> bool:
    """One sum in eight is never asked in training; as a step of a longer one it may occur."""
    return (first * 31 + second * 17 + len(op) * 7) % 8 == 0


def sum_chat(rng: random.Random, *, held_out: bool = False) -> Chat:
    """A question for one sum."""
    while True:
        op = rng.choice(tuple(_SIGNS))
        first, second, result = numbers(rng, op)
        if kept_for_evaluation(first, op, second) == held_out:
            break
    template = rng.choice(_HELD_OUT if held_out else _TRAINED)
    question = (
        template.replace("{a}", str(first))
        .replace("{b}", str(second))
        .replace("{op}", op)
        .replace("{sign}", _SIGNS[op])
    )
    if not held_out:
        question = varied(question, rng)
        if "{sign}" not in template and rng.random() < 0.15:
            question = as_spoken(question)
    equation = f"{first} {op} {second} is {result}"
    on_the_way = steps(first, op, second)
    answer = f"{', '.join(on_the_way)}, so {equation}." if on_the_way else f"{equation}."
    return Chat((Message("user", question), Message("assistant", answer)), "sums", (equation,))


def steps(first: int, op: str, second: int) -> list[str]:
    """How people do it in their heads, by tens, fives and ones; empty where there is but one step."""
    if op in ("plus", "minus"):
        tens, ones = second // 10 * 10, second % 10
        if not tens or not ones:
            return []
        between = first + tens if op == "plus" else first - tens
        result = between + ones if op == "plus" else between - ones
        return [f"{first} {op} {tens} is {between}", f"{between} {op} {ones} is {result}"]
    return _times(first, second) if op == "times" else _divided(first, second)


def _times(first: int, second: int) -> list[str]:
    """The larger factor in two parts, tens and ones, or five and what is over."""
    fewer, more = sorted((first, second))
    part = more // 10 * 10 or FIVE
    over = more - part
    if fewer == 1 or over <= 0:
        return []
    parts = fewer * part, fewer * over
    return [
        f"{fewer} times {part} is {parts[0]}",
        f"{fewer} times {over} is {parts[1]}",
        f"{parts[0]} plus {parts[1]} is {first * second}",
    ]


def _divided(first: int, second: int) -> list[str]:
    """As many tens of ``second`` as there are, then five of it, then what is left."""
    if second in (1, first) or not first:
        return []
    found: list[str] = []
    left = first
    for part in (left // second // 10 * 10, FIVE, 1):
        times = left // second if part == 1 else part
        product = second * times
        if not times or product > left:
            continue
        found.append(f"{second} times {times} is {product}")
        if product < left:
            found.append(f"{left} minus {product} is {left - product}")
        left -= product
    return found
