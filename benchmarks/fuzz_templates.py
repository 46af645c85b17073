"""Hostile chat templates for fuzz.py: endless, huge, prying and nonsensical Jinja."""

# ruff: noqa: E501 (hostile texts are long)

from __future__ import annotations

import random

_CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] | trim }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_FRAGMENTS = [
    *(
        "{% for m in messages %}",
        "{% endfor %}",
        "{{ messages }}",
        "{% set ns = namespace(a=1) %}",
        "{% set ns.a = [ns] %}",
    ),
    *(
        "{% if true %}",
        "{% endif %}",
        "{% macro f(x) %}",
        "{{ f(f) }}",
        "{% endmacro %}",
        "{{ 9 ** 9 ** 9 }}",
        "{{ ''|attr }}",
    ),
    *(
        "{{ messages[0].content * 99999 }}",
        "{{ [[]] * 999 }}",
        "{%- break %}",
        "{%- continue %}",
        "{{ loop }}",
        "{{ x.y.z }}",
    ),
    *(
        "{{ range(999999) | list }}",
        "{{ '%s' % messages }}",
        "{{ '{:>999999999}'.format(1) }}",
        "{# ",
        " #}",
        "{% raw %}",
    ),
    *(
        "{{ messages|tojson(indent=99999) }}",
        "{{ raise_exception('no') }}",
        "{{ strftime_now('%Y') }}",
        "\x00",
        "\ud7ff",
        "\\" * 99,
    ),
    *(
        "{% generation %}",
        "{% endgeneration %}",
        "{% include 'x' %}",
        "{% import 'x' as y %}",
        "{% call f() %}{% endcall %}",
    ),
]
_CRAFTED = [
    "{% for i in range(10**9) %}x{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% for k in range(99999) %}{% endfor %}{% endfor %}{% endfor %}",
    "{% for i in range(99999) %}{{ 'x' * 99999 }}{% endfor %}",
    "{{ 'x' * 10**10 }}",
    "{{ 'x' * 8000000 * 8000000 }}",
    "{{ [0] * 10**10 }}",
    "{{ 2 ** 10**9 }}",
    "{{ (10**1000) ** (10**1000) }}",
    "{{ 1 << 10**9 }}",
    "{{ 10**4000 // 3 % 7 }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% macro f(n) %}{{ f(n + 1) }}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
    "{% macro f(n) %}{% if n < 30 %}{{ f(n + 1) }}{{ f(n + 1) }}{% endif %}{% endmacro %}{{ f(0) }}",
    "{% macro f(x) %}{% set y = x ~ x %}{{ y | length }}{{ f(y) }}{% endmacro %}{{ f('ab') }}",
    "{% for a in [[1]] recursive %}{{ loop([a]) }}{% endfor %}",
    "{% set ns = namespace(s='x') %}{% for i in range(64) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}",
    "{% set ns = namespace(s=[1]) %}{% for i in range(64) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}",
    "{% set ns = namespace(s=[1]) %}{% for i in range(64) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s }}",
    "{% set ns = namespace(s={}) %}{% for i in range(40) %}{% set ns.s = {'a': ns.s, 'b': ns.s} %}{% endfor %}{{ ns.s|tojson }}",
    "{% set ns = namespace(s=[]) %}{% for i in range(5000) %}{% set ns.s = [ns.s] %}{% endfor %}{{ ns.s }}",
    "{% set ns = namespace(s=[]) %}{% for i in range(5000) %}{% set ns.s = [ns.s] %}{% endfor %}{{ ns.s == ns.s }}{{ ns.s|tojson }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__class__.__base__.__subclasses__() }}",
    "{{ ''['__class__'] }}{{ ''|attr('__class__') }}{{ ''|attr('\\x5f\\x5fclass\\x5f\\x5f') }}",
    "{{ self.__init__.__globals__ }}{{ self._TemplateReference__context }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ lipsum.__globals__['os'].system('id') }}{{ lipsum(n=10**6) }}",
    "{{ joiner.__init__.__globals__ }}{{ namespace.__init__ }}",
    "{{ raise_exception.__globals__ }}{{ strftime_now.__globals__ }}",
    "{{ range.__self__ }}{{ dict.__subclasses__() }}",
    "{{ messages | map(attribute='__class__') | list }}",
    "{{ messages | map('attr', '__class__') | list }}",
    "{{ messages | sort(attribute='__class__.__mro__') }}",
    "{{ messages | groupby('__class__') | list }}",
    "{{ messages | selectattr('__class__') | list }}",
    "{{ '{0.__class__.__mro__}'.format('') }}{{ '{a.__init__}'.format_map({'a': 1}) }}",
    "{{ '%(a)s' % {'a': ''.__class__} }}",
    "{{ '{:>10000000000}'.format('x') }}",
    "{{ '{0:{1}}'.format('x', 10**9) }}",
    "{{ '%999999999d' % 1 }}",
    "{{ '%*d' % (999999999, 1) }}",
    "{{ 'x' | center(10**9) }}",
    "{{ 'x'.center(10**9) }}{{ 'x'.ljust(10**9) }}{{ 'x'.zfill(10**9) }}",
    "{{ 'x\\n' * 1000000 | indent(10**6) }}",
    "{{ ('x\\n' * 1000000) | indent(60) }}",
    "{{ 'ab' * 4000000 | replace('a', 'b' * 8000000) }}",
    "{{ ('a' * 4000000).replace('a', 'b' * 4000000) }}",
    "{{ ('a' * 4000000).join(['x'] * 99999) }}",
    "{{ ('a' * 8000000).split('a') | length }}",
    "{{ ('a' * 8000000) | list | length }}",
    "{{ 'a' * 8000000 in 'a' * 8000000 }}{% for i in range(99999) %}{{ ('a' * 4000000 ~ 'b') in ('a' * 8000000) }}{% endfor %}",
    "{{ ('a' * 1000000 ~ 'b') .find('b') }}{% for i in range(99999) %}{{ ('ab' * 4000000).count('ba') }}{% endfor %}",
    "{{ messages | batch(10**9, 'x') | list }}{{ messages | slice(10**9) | list }}",
    "{{ 'x ' * 4000000 | wordwrap(1) }}{{ 'x ' * 4000000 | wordcount }}",
    "{{ ('http://a ' * 900000) | urlize }}",
    "{{ ('<' * 8000000) | striptags }}{{ ('<' * 8000000) | escape }}",
    "{{ 'x' | random }}{{ messages | xmlattr }}{{ messages | pprint }}",
    "{{ '9' * 5000000 | int }}{{ ('9' * 5000000) | int }}{{ ('9' * 5000000) | float }}",
    "{{ 10 ** 4300 }}{{ 7 ** 1500 }}",
    "{{ messages | tojson(indent=10**9) }}",
    "{{ range(99999) | list | tojson }}{{ range(99999) | map('string') | join('x' * 99999) }}",
    "{{ range(99999) | sum }}{{ [[1]] * 99999 | sum(start=[]) }}{{ ([[1]] * 99999) | sum(start=[]) }}",
    "{{ messages.append(messages) }}{{ messages }}",
    "{% set _ = messages.extend(messages * 99999) %}",
    "{% set x = dict(a=1) %}{% set _ = x.update({'b': x}) %}{{ x }}",
    "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}{{ ns.x.x.x }}",
    "{% block a %}{{ self.a() }}{% endblock %}",
    "{% extends 'x' %}",
    "{% extends self %}",
    "{% include messages %}",
    "{% from 'os' import system %}",
    "{% set a %}{% set b %}x{% endset %}{{ b }}{% endset %}{{ a }}",
    "{% filter upper %}{% for i in range(10**7) %}xxxxxxxxxx{% endfor %}{% endfilter %}",
    "{% set a %}{% for i in range(10**7) %}{{ 'x' * 1000 }}{% endfor %}{% endset %}",
    "{% for a in messages %}{% for b in cycler(1, 2) %}{% endfor %}{% endfor %}",
    "{% autoescape true %}{{ '<' * 8000000 }}{% endautoescape %}",
    "{% trans %}x{% endtrans %}{% do 1 %}{% debug %}",
    "{{ caller() }}{{ varargs }}{{ kwargs }}{{ super() }}{{ context }}{{ environment }}",
    "{{ raise_exception(messages) }}{{ raise_exception('x' * 8000000) }}",
    "{{ strftime_now('%Y' * 4000000) }}",
    "{{ strftime_now('%') }}{{ strftime_now('\\x00') }}{{ strftime_now(1) }}",
    "{{ strftime_now('%99999999Y') }}",
    "{{ nothing.at.all }}",
    "{{ messages[10**30] }}{{ messages[-1:10**30:0] }}",
    "{{ 1 / 0 }}",
    "{{ 1e308 * 1e308 }}{{ (1e308 * 10) | int }}",
    "{% for x in messages[0].content * 400000 %}{% for y in messages[0].content * 400000 %}{% endfor %}{% endfor %}",
    "{{ messages[0]['content'].encode() }}{{ ''.maketrans('a', 'b') }}{{ 'a'.translate({}) }}",
]


def hostile(rng: random.Random, number: int) -> tuple[str, str]:
    """(what is hostile, the template)."""
    if number < len(_CRAFTED):
        return f"crafted {number}", _CRAFTED[number]
    deep = rng.choice((50, 500, 5_000))
    ways = {
        "parentheses": "{{ " + "(" * deep + "1" + ")" * deep + " }}",
        "lists": "{{ " + "[" * deep + "]" * deep + " }}",
        "nots": "{{ " + "not " * deep + "1 }}",
        "minus": "{{ " + "-" * deep + "1 }}",
        "filters": "{{ 'x'" + " | upper" * deep + " }}",
        "ifs": "{% if 1 %}" * deep + "{% endif %}" * deep,
        "loops": "{% for a in range(2) %}" * (deep % 400) + "x" + "{% endfor %}" * (deep % 400),
        "elifs": "{% if 0 %}" + "{% elif 0 %}" * deep + "{% endif %}",
        "sum": "{{ 1" + " + 1" * deep + " }}",
        "attributes": "{{ messages" + ".a" * deep + " }}",
        "comparisons": "{{ 1" + " < 2" * deep + " }}",
        "too long": "x" * rng.choice((65_536, 65_537, 10**6)),
        "no end": "{{ " + "'" * deep,
        "random text": "".join(chr(rng.choice((rng.randrange(1, 128), rng.randrange(1, 0xD800)))) for _ in range(deep)),
    }
    kinds = [*ways, *["shuffled"] * 10, *["cut"] * 6]
    kind = rng.choice(kinds)
    if kind == "shuffled":
        return kind, "".join(rng.choice(_FRAGMENTS) for _ in range(rng.randrange(1, 40)))
    if kind == "cut":
        text = list(_CHATML)
        for _ in range(rng.randrange(1, 8)):
            at = rng.randrange(len(text))
            text[at : at + rng.randrange(4)] = rng.choice(["", "{", "}", "%", "|", "'", "**", "\x00", *_FRAGMENTS])
        return kind, "".join(text)
    return kind, ways[kind]
