"""A Jinja environment in which a model file's template can neither reach the machine nor fill its memory.

Jinja's own sandbox keeps templates from Python's internals. What is added here bounds sizes: every value that an
expression makes is measured before it may grow further, and the filters and methods are a list of what chat templates
use. Time is bounded by the caller (chat_template.py); no single operation here takes long.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, NoReturn, cast

from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.filters import FILTERS
from jinja2.parser import Parser
from jinja2.runtime import Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_TEXT_CHARS = 8 << 20  # of one value or of the whole output
MAX_ITEMS = 100_000  # of a list or mapping, those nested in it included
MAX_INTEGER_BITS = 4096
MAX_INDENT = 64
MAX_FORMAT_CHARS = 64
MAX_NUMERAL_CHARS = 100


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PLAIN_FILTERS = _names(
    "abs attr capitalize count d default dictsort e escape first float groupby items last length list lower map max "
    "min reject rejectattr reverse safe select selectattr sort string title trim unique upper"
)
_TEXT_METHODS = _names(
    "capitalize casefold count endswith find index isalnum isalpha isdecimal isdigit islower isnumeric isspace istitle "
    "isupper join lower lstrip partition removeprefix removesuffix replace rfind rindex rpartition rsplit rstrip split "
    "splitlines startswith strip swapcase title upper"
)
_METHODS: dict[type, frozenset[str]] = {
    str: _TEXT_METHODS,
    list: _names("count index"),
    tuple: _names("count index"),
    dict: _names("get items keys values"),
    int: frozenset(),
    float: frozenset(),
    bytes: frozenset(),
}


class TemplateRefusal(Exception):
    """The template itself refuses the messages (``raise_exception``)."""


def measured(value: Any) -> Any:
    """Returns the value. Raises SecurityError if it is larger than the bounds, all that it contains counted each time
    it is reached: turning it into text, comparing or hashing it then takes no long time."""
    if isinstance(value, str):
        if len(value) > MAX_TEXT_CHARS:
            raise SecurityError(f"a text longer than {MAX_TEXT_CHARS:,} characters")
    elif isinstance(value, list | tuple | dict | set):
        _measure_container(value)
    return value


def _measure_container(value: Any) -> None:
    n_items, n_chars, left = 0, 0, [value]
    while left:
        item = left.pop()
        n_items += 1
        if isinstance(item, str):
            n_chars += len(item)
        elif isinstance(item, dict):
            _check_room(n_items + len(left) + 2 * len(item))
            left.extend(item.keys())
            left.extend(item.values())
        elif isinstance(item, list | tuple | set):
            _check_room(n_items + len(left) + len(item))
            left.extend(item)
        if n_chars > MAX_TEXT_CHARS:
            raise SecurityError(f"a list with more than {MAX_TEXT_CHARS:,} characters")


def _check_room(n_items: int) -> None:
    if n_items > MAX_ITEMS:
        raise SecurityError(f"a list of more than {MAX_ITEMS:,} items")


def _bounded_concat(parts: Iterable[Any]) -> str:
    """Joins what a template puts out, stopping at the bound."""
    texts, n_chars = [], 0
    for part in parts:
        text = str(part)
        n_chars += len(text)
        if n_chars > MAX_TEXT_CHARS:
            raise SecurityError(f"an output longer than {MAX_TEXT_CHARS:,} characters")
        texts.append(text)
    return "".join(texts)


def _multiply(left: Any, right: Any) -> Any:
    for sequence, count in ((left, right), (right, left)):
        if isinstance(sequence, str | list | tuple) and isinstance(count, int):
            limit = MAX_TEXT_CHARS if isinstance(sequence, str) else MAX_ITEMS
            if len(sequence) * count > limit:
                raise SecurityError(f"a repetition longer than {limit:,}")
    _check_bits(_bits(left) + _bits(right))
    return measured(left * right)


def _power(left: Any, right: Any) -> Any:
    _check_bits(_bits(left) * abs(right) if isinstance(right, int) else 0)
    return left**right


def _add(left: Any, right: Any) -> Any:
    if isinstance(left, str) and isinstance(right, str) and len(left) + len(right) > MAX_TEXT_CHARS:
        raise SecurityError(f"a text longer than {MAX_TEXT_CHARS:,} characters")
    return measured(left + right)


def _modulo(left: Any, right: Any) -> Any:
    if isinstance(left, str) and re.search(r"%[^a-zA-Z%]*(\d{4}|\*)", left):
        raise SecurityError("a format wider than 999 characters")
    return measured(left % right)


def _bits(value: Any) -> int:
    return value.bit_length() if isinstance(value, int) else 0


def _check_bits(n_bits: int) -> None:
    if n_bits > MAX_INTEGER_BITS:
        raise SecurityError(f"a number of more than {MAX_INTEGER_BITS} bits")


def _replaced_chars(text: str, old: Any, new: Any) -> int:
    return len(text) + text.count(str(old)) * len(str(new))


def _joined_chars(separator: str, items: list[Any]) -> int:
    return sum(len(str(item)) for item in items) + len(separator) * len(items)


def _check_chars(n_chars: int) -> None:
    if n_chars > MAX_TEXT_CHARS:
        raise SecurityError(f"a text longer than {MAX_TEXT_CHARS:,} characters")


def _filter_join(value: Iterable[Any], d: str = "", attribute: str | None = None) -> str:
    items = measured(list(value))
    if attribute is not None:
        items = [item.get(attribute, "") for item in items if isinstance(item, dict)]
    texts = [str(item) for item in items]
    _check_chars(_joined_chars(d, texts))
    return d.join(texts)


def _filter_replace(value: Any, old: str, new: str, count: int = -1) -> str:
    text = str(value)
    _check_chars(_replaced_chars(text, old, new))
    return text.replace(str(old), str(new), -1 if count is None else count)


def _filter_indent(value: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    prefix = width if isinstance(width, str) else " " * min(max(width, 0), MAX_INDENT)
    lines = str(value).splitlines(keepends=True)
    _check_chars(_joined_chars(prefix, lines))
    return "".join(
        line if (i == 0 and not first) or (not blank and not line.strip()) else prefix + line
        for i, line in enumerate(lines)
    )


def _filter_int(value: Any, default: int = 0, base: int = 10) -> int:
    if isinstance(value, str) and len(value) > MAX_NUMERAL_CHARS:
        raise SecurityError(f"a number of more than {MAX_NUMERAL_CHARS} digits")
    try:
        return int(value, base) if isinstance(value, str) else int(value)
    except (TypeError, ValueError, OverflowError):
        return default


def _filter_tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as transformers writes it: not escaped for HTML."""
    if indent is not None and not 0 <= indent <= MAX_INDENT:
        raise SecurityError(f"an indent of more than {MAX_INDENT}")
    if isinstance(value, Undefined):
        raise SecurityError("tojson of something undefined")
    return json.dumps(
        measured(value), ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: object = "") -> NoReturn:
    raise TemplateRefusal(str(message)[:500])


def _strftime_now(format_: str) -> str:
    # glibc pads to any width that is asked for
    if len(format_) > MAX_FORMAT_CHARS or re.search(r"%[^a-zA-Z%]*\d", format_):
        raise SecurityError(f"a time format longer than {MAX_FORMAT_CHARS} characters, or padded")
    return datetime.now().strftime(format_)


class _Generation(Extension):
    """``{% generation %}``, by which trainers mark answers; here it only encloses."""

    tags = {"generation"}  # noqa: RUF012 (declared so by jinja2)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """The environment of chat templates, with transformers' conventions and the bounds of this module."""

    intercepted_binops = frozenset(("*", "**", "+", "%"))
    concat = staticmethod(_bounded_concat)

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,
            cache_size=0,
            extensions=["jinja2.ext.loopcontrols", _Generation],
            finalize=measured,
        )
        self.filters = {name: FILTERS[name] for name in _PLAIN_FILTERS} | {
            "join": _filter_join,
            "replace": _filter_replace,
            "indent": _filter_indent,
            "int": _filter_int,
            "tojson": _filter_tojson,
        }
        kept = {name: self.globals[name] for name in ("range", "dict", "namespace", "joiner", "cycler")}
        self.globals = kept | {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
        self.measured = measured
        self.joined = lambda *parts: _bounded_concat(map(measured, parts))

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        template = super()._parse(source, name, filename)
        _rewrite(template)
        return template

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        for kind, allowed in _METHODS.items():
            if isinstance(obj, kind) and attr not in allowed:
                return False
        return bool(super().is_safe_attribute(obj, attr, value))

    def wrap_str_format(self, value: Any) -> None:
        """Jinja would allow ``str.format``, of any width; so it is treated like the other methods."""

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:  # noqa: ARG002
        operations: dict[str, Callable[[Any, Any], Any]] = {"*": _multiply, "**": _power, "+": _add, "%": _modulo}
        return operations[operator](left, right)

    def call(self, context: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:
        if obj is self.measured or obj is self.joined:
            return obj(*args)
        text = getattr(obj, "__self__", None)
        if isinstance(text, str):
            args = _checked_arguments(text, obj.__name__, args)
        return measured(super().call(context, obj, *args, **kwargs))


def _checked_arguments(text: str, method: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments of a method of ``text``, after making sure that the result keeps within the bounds."""
    if method == "replace" and len(args) >= 2:
        _check_chars(_replaced_chars(text, args[0], args[1]))
    elif method == "join" and args:
        items = measured(list(args[0]))
        _check_chars(_joined_chars(text, items))
        return (items,)
    return args


def _rewrite(node: nodes.Node) -> None:
    """Sends ``~``, filters and list, tuple and dict displays through the bounds: Jinja's sandbox ignores them."""
    for field, value in node.iter_fields():
        if field == "filter" and isinstance(value, nodes.Filter):
            _rewrite_block_filter(value)
        elif isinstance(value, nodes.Node):
            setattr(node, field, _bounded(value))
        elif isinstance(value, list):
            setattr(node, field, [_bounded(item) if isinstance(item, nodes.Node) else item for item in value])


def _bounded(node: nodes.Node) -> nodes.Node:
    _rewrite(node)
    if isinstance(node, nodes.Concat):
        return _call("joined", node.nodes, node.lineno)
    is_display = isinstance(node, nodes.List | nodes.Dict) or (isinstance(node, nodes.Tuple) and node.ctx == "load")
    if is_display or isinstance(node, nodes.Filter):
        return _call("measured", [cast(nodes.Expr, node)], node.lineno)
    return node


def _rewrite_block_filter(node: nodes.Filter) -> None:
    """The filters of ``{% filter %}`` and ``{% set x | … %}``, which the compiler wants to find as they are."""
    inner, node.node = node.node, None
    _rewrite(node)
    if isinstance(inner, nodes.Filter):
        _rewrite_block_filter(inner)
    node.node = inner


def _call(name: str, args: list[nodes.Expr], lineno: int) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(name), args, [], None, None, lineno=lineno)
