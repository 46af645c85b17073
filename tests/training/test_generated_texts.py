"""Generated texts: quotations stand in their sources, and sums are right."""

from __future__ import annotations

import operator
import random
import re
from collections.abc import Callable

from hearth.quoting import NOT_IN_SOURCES
from training.prose import sentences
from training.quotes import Quoter
from training.sums import kept_for_evaluation, sum_chat
from training.sums import steps as on_the_way
from training.texts import Writer


def test_quoted_sentences_stand_in_their_sources() -> None:
    writer = Writer(random.Random(4))
    prose = sentences(
        ["# page\n\n> Show the size of a file in a folder.\n- Print a line of every folder:\n\n`tool -x`\n"]
    )
    assert prose == ["Show the size of a file in a folder", "Print a line of every folder"]
    quoter = Quoter(writer, prose)
    answers = [message.text for _ in range(30) for message in quoter.chat().messages if message.role == "assistant"]
    assert 0 < sum(answer.endswith(NOT_IN_SOURCES) for answer in answers) < len(answers) / 3
    for _ in range(30):
        chat = quoter.chat(max_words=80)
        sources = chat.messages[0].text.partition("\n\n")[0]
        for question, answer in zip(chat.messages[::2], chat.messages[1::2], strict=True):
            taken_up, _, found = answer.text.partition(": ")
            assert taken_up.removeprefix("About ").removeprefix("the ") in question.text
            assert found == NOT_IN_SOURCES or found in sources


def test_sums_and_the_steps_to_them_are_right_and_some_are_never_asked_in_training() -> None:
    right: dict[str, Callable[[int, int], float]] = {
        "plus": operator.add, "minus": operator.sub, "times": operator.mul, "divided by": operator.truediv,
    }  # fmt: skip
    rng = random.Random(0)
    longest = 0
    for held_out in (False, True):
        for _ in range(200):
            chat = sum_chat(rng, held_out=held_out)
            *steps, asked = chat.messages[1].text.removesuffix(".").replace(", so ", ", ").split(", ")
            longest = max(longest, len(steps))
            for equation in (*steps, asked):
                first, op, second, result = re.fullmatch(r"(\d+) (.+) (\d+) is (\d+)", equation).groups()  # type: ignore[union-attr]
                assert right[op](int(first), int(second)) == int(result)
                assert 0 <= int(result) <= 100
            assert chat.expected == (asked,)
            assert kept_for_evaluation(int(first), op, int(second)) is held_out
    assert longest > 7
    for chat in (sum_chat(rng) for _ in range(200)):
        by_steps = " plus " in chat.expected[0] or " minus " in chat.expected[0]
        assert (", so " in chat.messages[1].text) == (by_steps and ", " in chat.messages[1].text)
    assert on_the_way(7, "times", 4) == [f"{n} times 4 is {4 * n}" for n in range(1, 7)]
    assert on_the_way(84, "divided by", 7) == ["70 divided by 7 is 10", "77 divided by 7 is 11"]
    assert on_the_way(48, "plus", 25) == ["48 plus 20 is 68", "68 plus 5 is 73"]
    assert not on_the_way(9, "times", 1)
    assert not on_the_way(1, "times", 9)
    assert not on_the_way(0, "divided by", 9)


def test_grounded_answers_are_sentences_of_the_cited_passage_and_end_with_its_number() -> None:
    for held_out in (False, True):
        writer = Writer(random.Random(2), held_out=held_out)
        for _ in range(300):
            chat = writer.grounded()
            question, answer = chat.messages[-2:]
            sources = chat.messages[0].text
            assert sources.startswith("Sources:\n[1] ")
            taken_up, _, quoted = answer.text.partition(": ")
            assert taken_up.removeprefix("About ").lower() in question.text.lower()
            if quoted == NOT_IN_SOURCES:
                continue
            value, number = chat.expected
            assert quoted.endswith(f" {number}.")
            line = next(line for line in sources.split("\n") if line.startswith(number))
            assert quoted.removesuffix(f" {number}.") in line
            assert value.lower() in answer.text.lower()
            assert question.text
