"""Templates in the manner of well-known model families, and hostile ones."""

from __future__ import annotations

import pytest

from hearth.models import chat_template as module
from hearth.models.chat_template import ChatTemplate
from hearth.models.errors import TemplateError
from tests.models.tiny_gguf import CHAT_TEMPLATE

SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": " Hi "}
ANSWER = {"role": "assistant", "content": "Hello."}

LLAMA_3 = """{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = '' %}
{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\n\n' ~ system_message ~ '<|eot_id|>' }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}"""
QWEN = """{%- for message in messages %}
    {%- if loop.first and messages[0].role != 'system' %}
        {{- '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\n' }}
    {%- if message.content is string %}{{- message.content }}{%- else %}
        {%- for part in message.content %}{{- part.text if part.type == 'text' else '<image>' }}{%- endfor %}
    {%- endif %}
    {{- '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"""
GEMMA = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif %}{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}
{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"""  # noqa: E501
MISTRAL = """{%- set ns = namespace(index=0) -%}{{ bos_token }}
{%- for message in messages %}
    {%- if message.role == 'user' %}{{ '[INST] ' ~ message.content ~ '[/INST]' }}
    {%- elif message.role == 'assistant' %}{{ ' ' ~ message.content ~ eos_token }}{% set ns.index = ns.index + 1 %}
    {%- else %}{% continue %}
    {%- endif %}
{%- endfor %}"""


@pytest.mark.parametrize(
    ("source", "messages", "expected"),
    [
        (
            LLAMA_3,
            [SYSTEM, USER],
            "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
        (
            QWEN,
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}],
            "<|im_start|>system\nYou are helpful.<|im_end|>\n<|im_start|>user\n<image>What?<|im_end|>\n"
            "<|im_start|>assistant\n",
        ),
        (GEMMA, [USER, ANSWER], "<s><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nHello.<end_of_turn>\n"
            "<start_of_turn>model\n"),
        (MISTRAL, [SYSTEM, USER, ANSWER, USER], "<s>[INST]  Hi [/INST] Hello.</s>[INST]  Hi [/INST]"),
        (None, [USER], "<|im_start|>user\n Hi <|im_end|>\n<|im_start|>assistant\n"),
        (CHAT_TEMPLATE, [USER, ANSWER], "<|user|> Hi <|end|><|assistant|>Hello.<|end|><|assistant|>"),
        ("{{ messages[0] | tojson }}{% generation %}!{% endgeneration %}", [ANSWER],
            '{"role": "assistant", "content": "Hello."}!'),
    ],
)  # fmt: skip
def test_families_of_templates(source: str | None, messages: list[dict[str, object]], expected: str) -> None:
    assert ChatTemplate(source, "<s>", "</s>").render(messages, True) == expected


def test_without_generation_prompt() -> None:
    assert ChatTemplate(None).render([USER], False).endswith("<|im_end|>\n")


def test_user_text_is_never_a_template() -> None:
    assert "{{ 7 * 7 }}" in ChatTemplate(None).render([{"role": "user", "content": "{{ 7 * 7 }}"}], True)


def test_a_template_may_refuse_messages() -> None:
    with pytest.raises(TemplateError, match="refuses these messages: System role not supported"):
        ChatTemplate(GEMMA).render([SYSTEM, USER], True)


HOSTILE = {
    "internals": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "internals by filter": "{{ (''|attr('__class__')).x }}",
    "globals": "{{ cycler.__init__.__globals__ }}",
    "file": "{% include '/etc/passwd' %}",
    "change of the messages": "{{ messages.append(1) }}",
    "string multiplication": "{{ 'a' * 10**9 }}",
    "list multiplication": "{{ [0] * 10**9 }}",
    "power": "{{ 2 ** 999999999 }}",
    "squaring": "{% set n = namespace(x=9) %}{% for i in range(99) %}{% set n.x = n.x * n.x %}{% endfor %}{{ n.x }}",
    "center filter": "{{ 'a'|center(999999999) }}",
    "center method": "{{ 'a'.center(999999999) }}",
    "format": "{{ '{:999999999}'.format(1) }}",
    "format taken by filter": "{{ ('{:999999999}'|attr('format'))(1) }}",
    "percent": "{{ '%999999999d' % 1 }}",
    "percent star": "{{ '%*d' % (999999999, 1) }}",
    "time": "{{ strftime_now('%999999999d') }}",
    "bytes": "{{ (1).to_bytes(999999999, 'big') }}",
    "numeral": "{{ ('z' * 1000000)|int(0, 36) }}",
    "range": "{{ range(999999999)|list }}",
    "doubling text": "{% set n = namespace(s='a') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    "doubling sum": "{% set n = namespace(s='a') %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}",
    "nesting": "{% set n = namespace(l=[1]) %}{% for i in range(60) %}{% set n.l = [n.l, n.l] %}{% endfor %}{{ n.l }}",
    "nested dicts": "{% set n = namespace(l=1) %}{% for i in range(60) %}{% set n.l = {1: n.l, 2: n.l} %}{% endfor %}",
    "replace method": "{% set x = 'a' * 1000000 %}{{ x.replace('a', x) }}",
    "replace filter": "{% set x = 'a' * 1000000 %}{{ x|replace('a', x) }}",
    "join method": "{% set x = 'a' * 1000000 %}{{ x.join(range(9999)|map('string')) }}",
    "join filter": "{% set x = 'a' * 1000000 %}{{ range(9999)|join(x) }}",
    "captured": "{% set x = 'a' * 8000000 %}{% set y %}{% for i in range(9999) %}{{ x }}{% endfor %}{% endset %}",
    "block filter": "{% set x = 'a' * 8000000 %}{% filter replace('b', x ~ x ~ x) %}b{% endfilter %}",
    "output": "{% set x = 'a' * 8000000 %}{{ x }}{{ x }}",
    "recursion": "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
    "deep source": "{{ " + "(" * 20000 + "1" + ")" * 20000 + " }}",
    "broken source": "{% for",
    "long source": "x" * 70_000,
    "undefined": "{{ nothing.at.all }}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_templates_end_in_a_template_error(name: str) -> None:
    with pytest.raises(TemplateError) as caught:
        ChatTemplate(HOSTILE[name]).render([USER], True)
    assert "\n" not in str(caught.value)
    assert "ran longer" not in str(caught.value), "should have been stopped by its size, not by the clock"


def test_endless_templates_are_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIME_LIMIT_S", 0.2)
    endless = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    template = ChatTemplate(endless)
    with pytest.raises(TemplateError, match=r"longer than 0\.2 s"):
        template.render([USER], True)
