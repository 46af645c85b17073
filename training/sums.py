"""Sums that the pocket model is to do: whole numbers up to 100, in words or signs."""

from __future__ import annotations

import random

from training.chats import Chat, Message
from training.world import as_spoken, varied

LIMIT = 100
_COUNTED_UP = ("times", "divided by")
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
    """One sum in eight is never asked in training; as a step of another it may occur, and most products do."""
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
    link = ", " if op in _COUNTED_UP else ", so "
    answer = link.join(filter(None, (", ".join(steps(first, op, second)), equation))) + "."
    return Chat((Message("user", question), Message("assistant", answer)), "sums", (equation,))


def steps(first: int, op: str, second: int) -> list[str]:
    """How people do it in their heads, up to the sum itself: by tens and ones, or by counting up a row of multiples,
    the last of which it is: each follows from the one before, and where to stop is seen.
    """
    if op == "times":
        return [f"{times} times {second} is {times * second}" for times in _up_to(first)[:-1] if second > 1]
    if op == "divided by":
        counted = _up_to(first // second)[:-1] if second > 1 else ()
        return [f"{times * second} divided by {second} is {times}" for times in counted]
    tens, ones = second // 10 * 10, second % 10
    if not tens or not ones:
        return []
    between = first + tens if op == "plus" else first - tens
    result = between + ones if op == "plus" else between - ones
    return [f"{first} {op} {tens} is {between}", f"{between} {op} {ones} is {result}"]


def _up_to(times: int) -> tuple[int, ...]:
    """By tens, then by ones."""
    tens = times // 10 * 10
    return (*range(10, tens + 1, 10), *range(tens + 1, times + 1))
