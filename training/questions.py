"""Question sentences of the skills beyond naming: relations, comparison, print, charts, several pictures, JSON."""

from __future__ import annotations

from training.world import PICTURE_QUESTIONS, Phrasings


def _phrasings(trained: str, held_out: str) -> Phrasings:
    return Phrasings(tuple(trained.strip().split("\n")), tuple(held_out.strip().split("\n")))


# blanks as in training.world; {l} a bar's label, {s} a statement, {f} names of JSON fields
MORE_QUESTIONS: dict[str, Phrasings] = {
    "shape": _phrasings(
        """What shape is this?
Which shape is this?
What shape is it?
Which shape do you see?
What shape do you see?
What is the shape?
Name the shape.
Tell me the shape.
What shape is in the picture?
Which shape is drawn here?
What shape has been drawn?
And the shape?""",
        """Which shape does the picture show?
Can you tell me which shape this is?
What shape can you see?""",
    ),
    "relation": _phrasings(
        """What is {r} the {x}?
What do you see {r} the {x}?
What can you see {r} the {x}?
Which thing is {r} the {x}?
What lies {r} the {x}?
And what is {r} the {x}?
Tell me what is {r} the {x}.""",
        """Which thing do you see {r} the {x}?
Can you tell me what is {r} the {x}?
What thing is {r} the {x}?""",
    ),
    "is_relation": _phrasings(
        """Is the {y} {r} the {x}?
Is it true that the {y} is {r} the {x}?
The {y} is {r} the {x}. Is that right?
Do you see the {y} {r} the {x}?
Is the {y} really {r} the {x}?
The {y} is {r} the {x}. True or false?""",
        """Would you say that the {y} is {r} the {x}?
The {y} is {r} the {x}. Is that true?""",
    ),
    "bigger": _phrasings(
        """Which is {c}, the {x} or the {y}?
Which one is {c}, the {x} or the {y}?
What is {c}, the {x} or the {y}?
Which thing is {c}?
Which of them is {c}?
Which is {c}?
What is {c}?
Is the {x} {c} or the {y}?
Tell me which is {c}.
Compare them: which is {c}?""",
        """Which of the two is {c}?
Which thing in the picture is {c}, the {x} or the {y}?
Can you tell me which one is {c}?""",
    ),
    "more": _phrasings(
        """Are there more {xs} or more {ys}?
Are there more {xs} or {ys}?
What are there more of, {xs} or {ys}?
Do you see more {xs} or more {ys}?
Which are there more of?
Of which thing are there more?
What do you see more of, {xs} or {ys}?
More {xs} or more {ys}?
Which is there more of, {xs} or {ys}?""",
        """Which are there more of, {xs} or {ys}?
Can you tell me if there are more {xs} or more {ys}?
What is there more of?""",
    ),
    "statement": _phrasings(
        """{s} Is that right?
{s} Is this true?
{s} True or false?
Is this right: {s}
True or false: {s}
{s} Yes or no?
Check this: {s}
{s} Right?
Is it true? {s}""",
        """{s} Is that true?
Is the following true? {s}
{s} Is that correct?""",
    ),
    "words": _phrasings(
        """What does it say?
What does this say?
What is written here?
What is written there?
What is written in the picture?
What does the sign say?
What does the picture say?
Read this.
Read the text.
Read the word.
Can you read this?
Can you read it?
What is printed here?
Which word is this?
Which word is printed here?
What word do you see?
What text is in the picture?
What is the text?
Read it to me.
Please read this.
Tell me what it says.
Which number is printed here?
What number is this?
What do you read?""",
        """What does the text say?
Please read what is written here.
Can you read the text in the picture?
Tell me what is written here.
What is printed in this picture?""",
    ),
    "chart": _phrasings(
        """What is the value for {l}?
What is the value of {l}?
What value does {l} have?
How high is {l}?
How high is the bar for {l}?
How much is {l}?
How many does {l} have?
What is {l}?
Which value does {l} have?
Read the value for {l}.
Give me the value of {l}.
Tell me the value for {l}.
What does the chart say for {l}?
What does the bar for {l} show?
And {l}?
And for {l}?""",
        """What value does the chart show for {l}?
Which value do you see for {l}?
How high is the value for {l}?
Please tell me the value of {l}.""",
    ),
    "chart_colour": _phrasings(
        """What is the value of the {c} bar?
How high is the {c} bar?
What value does the {c} bar have?
What does the {c} bar show?
Read the {c} bar.
And the {c} bar?
How much is the {c} bar?
Tell me the value of the {c} bar.""",
        """Which value does the {c} bar have?
Please tell me how high the {c} bar is.""",
    ),
    "highest": _phrasings(
        """Which bar is the highest?
Which is the highest bar?
What is the highest?
Which one has the most?
Which has the highest value?
Where is the value highest?
Who or what has the most?
Name the highest bar.""",
        """Which bar has the highest value?
What is the highest bar?""",
    ),
    "bars": _phrasings(
        """How many bars are there?
How many bars do you see?
How many bars does the chart have?
Count the bars.
What is the number of bars?""",
        """How many bars can you see?
Tell me how many bars there are.""",
    ),
    "common": _phrasings(
        """What do the pictures have in common?
What do they have in common?
What do these pictures share?
What is common to the pictures?
What is the same in both?
What is the same?
What do both pictures show?
What do all pictures share?
In what are they alike?
What have they in common?
Is there something in common?""",
        """What do the pictures share?
What do these pictures have in common?
What is the same in the pictures?""",
    ),
    "differ": _phrasings(
        """What is the difference?
What is different?
What differs?
How do the pictures differ?
How do they differ?
What is the difference between the pictures?
What is not the same?
What changes from the first to the second?
Compare the pictures.
In what are they different?""",
        """What is different between the pictures?
In what do the pictures differ?
How are these pictures different?""",
    ),
    "json": _phrasings(
        """Give me {f} as JSON.
{f} as JSON.
Write {f} as JSON.
Describe the picture as JSON with {f}.
Answer as JSON with {f}.
Fill in {f} as JSON.
JSON, please: {f}.
Return JSON with the fields {f}.
Make a JSON object with {f}.
What do you see? Answer in JSON with {f}.""",
        """Describe the picture in JSON with the fields {f}.
Please give me {f} as JSON.
Write a JSON object with {f} for this picture.""",
    ),
}
ALL_QUESTIONS: dict[str, Phrasings] = {**PICTURE_QUESTIONS, **MORE_QUESTIONS}
