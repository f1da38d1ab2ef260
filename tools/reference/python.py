"""Pages of the Python client: signatures and docstrings of the names that `samserve.client` exports.

They are read from the source and not from the objects, so that annotations stand as they were written, on every Python.
"""

import ast
import importlib
import operator
import re
import textwrap
from collections.abc import Iterator
from functools import cache
from inspect import cleandoc
from pathlib import Path

import samserve.client

PAGES = {
    "python.md": ("Python client", ("Client",)),
    "python-asyncio.md": ("Python client for asyncio", ("AsyncClient",)),
    "python-streams.md": ("Streams of the Python client", ("GazeStream", "InteractiveSession")),
    "python-asyncio-streams.md": (
        "Streams of the Python client for asyncio",
        ("AsyncGazeStream", "AsyncInteractiveSession"),
    ),
    "python-arguments.md": (
        "Arguments of the Python client",
        ("ImageLike", "ImageId", "Prompt", "Detection", "MaskGenerationParameters"),
    ),
    "python-results.md": (
        "Results of the Python client",
        (
            *("Segmentation", "CocoRle", "Timings", "EmbeddedImage", "ImageEmbedding", "GeneratedMask", "ServerInfo"),
            "Limits",
        ),
    ),
    "python-stream-values.md": (
        "Answers of the Python client's streams",
        ("StreamMask", "Refused", "SessionMasks", "GazeAnswer", "GazeCounts", "TrackedFrame", "TrackedObject"),
    ),
    "python-errors.md": (
        "Errors of the Python client",
        (
            *("ClientError", "InvalidRequest", "ImageNotFound", "RetryLater", "Unavailable", "Overloaded"),
            *("DeadlineExceeded", "ServerError"),
        ),
    ),
}
"""Title and names of each page."""

_MADE_BY_CALLERS = ("Client", "AsyncClient")
"""Classes whose `__init__` is shown. Dataclasses show their fields; instances of the others are returned by calls."""

_GENERATED = "<!-- Generated from service/samserve/client/ by `make reference`; do not edit. -->"
_SECTION = re.compile(r"(Args|Attributes|Raises):")
_SIGNATURE_WIDTH = 110

_Function = ast.FunctionDef | ast.AsyncFunctionDef


def pages() -> dict[str, str]:
    """Render each page, keyed by file name.

    Raises:
        ValueError: an exported name is on no page, or a page has a name that is not exported.
    """
    placed = {name for _, names in PAGES.values() for name in names}
    missing = placed ^ set(samserve.client.__all__)
    if missing:
        raise ValueError(f"tools/reference/python.py: PAGES and samserve.client differ in {', '.join(sorted(missing))}")
    texts = {}
    for page, (title, names) in PAGES.items():
        parts = [_GENERATED, f"# {title}", _contents(page)]
        for name in names:
            parts += _exported(name)
        texts[page] = "\n\n".join(part for part in parts if part) + "\n"
    return texts


def _contents(page: str) -> str:
    others = [(title, other) for other, (title, _) in PAGES.items() if other != page]
    return "`from samserve.client import ...`. See also: " + ", ".join(f"[{t}]({other})" for t, other in others) + "."


@cache
def _module(name: str) -> ast.Module:
    file = importlib.import_module(name).__file__
    assert file is not None
    return ast.parse(Path(file).read_text())


def _exported(name: str) -> Iterator[str]:
    found = getattr(samserve.client, name)
    if isinstance(found, type):
        yield from _class(found)
    else:
        yield from _alias(name)


def _alias(name: str) -> Iterator[str]:
    imports = [node for node in _module("samserve.client").body if isinstance(node, ast.ImportFrom)]
    source = next(node.module for node in imports if name in [alias.name for alias in node.names])
    assert source is not None
    body = _module(source).body
    assignments = {ast.unparse(node.targets[0]): i for i, node in enumerate(body) if isinstance(node, ast.Assign)}
    assignment, comment = body[assignments[name] : assignments[name] + 2]
    yield f"## {name}"
    yield _code(ast.unparse(assignment))
    if isinstance(comment, ast.Expr) and isinstance(comment.value, ast.Constant):
        yield _prose(cleandoc(str(comment.value.value)))


def _class(cls: type) -> Iterator[str]:
    node = _class_node(cls)
    methods = _methods(cls)
    yield f"## {cls.__name__}"
    init = methods.pop("__init__", None)
    bases = f"({', '.join(ast.unparse(base) for base in node.bases)})" if node.bases else ""
    made = init if cls.__name__ in _MADE_BY_CALLERS else None
    opened = [_signature(cls.__name__, _arguments(made, cls.__module__), "")] if made else []
    yield _code(f"class {cls.__name__}{bases}", *opened)
    text, sections = _docstring(node)
    yield text
    fields = [each for each in node.body if isinstance(each, ast.AnnAssign)]
    attributes = sections.pop("Attributes", {})
    if fields:
        yield _fields(fields, attributes)
    elif attributes:
        yield _list(attributes)
    if made:
        sections |= _docstring(made)[1]
    yield from _sections(sections)
    brief = [method for method in methods.values() if _is_brief(method)]
    if brief:
        yield "Methods and properties:"
        yield "\n".join(f"- `{_head(method)}`: {_docstring(method)[0]}" for method in brief)
    for method in methods.values():
        if method not in brief:
            yield f"### {cls.__name__}.{method.name}"
            arguments = _arguments(method, cls.__module__)
            signature = _signature(f"{_keyword(method)}{method.name}", arguments, _returns(method))
            yield _code(_head(method) if _is_property(method) else signature)
            text, sections = _docstring(method)
            yield text
            yield from _sections(sections)


def _class_node(cls: type) -> ast.ClassDef:
    nodes = _module(cls.__module__).body
    return next(node for node in nodes if isinstance(node, ast.ClassDef) and node.name == cls.__name__)


def _methods(cls: type) -> dict[str, _Function]:
    """Public methods and `__init__`, including those inherited from classes that are not exported."""
    methods: dict[str, _Function] = {}
    for base in cls.__mro__:
        inherited = base is not cls
        if not base.__module__.startswith("samserve.") or (inherited and base.__name__ in samserve.client.__all__):
            continue
        for node in _class_node(base).body:
            if isinstance(node, _Function) and (node.name == "__init__" or not node.name.startswith("_")):
                methods.setdefault(node.name, node)
    return methods


def _is_brief(method: _Function) -> bool:
    """Return True if one line is enough: for a property, or a method without arguments or similar to another."""
    text, sections = _docstring(method)
    short = _is_property(method) or _takes_nothing(method) or text.startswith("As `")
    return short and not sections and "\n" not in text


def _is_property(method: _Function) -> bool:
    return any(ast.unparse(each).endswith("property") for each in method.decorator_list)


def _head(method: _Function) -> str:
    if _is_property(method):
        return f"{method.name}{_returns(method).replace(' ->', ':')}"
    arguments = "" if _takes_nothing(method) else "..."
    return f"{_keyword(method)}{method.name}({arguments})"


def _takes_nothing(method: _Function) -> bool:
    return len(method.args.args) == 1 and not method.args.kwonlyargs


def _keyword(method: _Function) -> str:
    return "async " if isinstance(method, ast.AsyncFunctionDef) else ""


def _arguments(method: _Function, module: str) -> list[str]:
    """The arguments except `self`, as in a signature."""
    arguments = method.args
    required = len(arguments.args) - len(arguments.defaults)
    positional = [
        _argument(each, None if i < required else arguments.defaults[i - required], module)
        for i, each in enumerate(arguments.args)
    ]
    named = [
        _argument(each, default, module)
        for each, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    ]
    rest = [f"**{_argument(arguments.kwarg, None, module)}"] if arguments.kwarg else []
    return [*positional[1:], *(["*", *named] if named else []), *rest]


def _argument(argument: ast.arg, default: ast.expr | None, module: str) -> str:
    text = argument.arg if argument.annotation is None else f"{argument.arg}: {_annotation(argument.annotation)}"
    return text if default is None else f"{text} = {_value(default, module)}"


def _value(node: ast.expr, module: str) -> str:
    """A default as a literal, also if it is a constant of another module."""
    text = ast.unparse(node)
    if isinstance(node, ast.Name | ast.Attribute):
        return repr(operator.attrgetter(text)(importlib.import_module(module)))
    return text


def _returns(method: _Function) -> str:
    return "" if method.returns is None else f" -> {_annotation(method.returns)}"


def _annotation(node: ast.expr) -> str:
    return ast.unparse(node).replace("npt.", "").replace("np.", "").replace("'", "")


def _signature(name: str, arguments: list[str], returns: str) -> str:
    """A signature, with a line break after each argument."""
    unbroken = [argument.replace(" ", "\0") for argument in arguments]
    text = f"{name}({', '.join(unbroken)})" + returns.replace(" ", "\0")
    lines = textwrap.wrap(text, _SIGNATURE_WIDTH, subsequent_indent="    ", break_long_words=False)
    return "\n".join(lines).replace("\0", " ")


def _code(*lines: str) -> str:
    return "\n".join(["```python", *lines, "```"])


def _fields(fields: list[ast.AnnAssign], attributes: dict[str, str]) -> str:
    rows = []
    for field in fields:
        name, kind = ast.unparse(field.target), _annotation(field.annotation)
        if field.value is not None and not isinstance(field.value, ast.Call):
            kind += f" = {ast.unparse(field.value)}"
        # Unescaped, GitHub treats the bar of a union as the end of a table cell.
        kind = kind.replace("|", "\\|")
        rows.append(f"| `{name}` | `{kind}` | {attributes.get(name, '')} |")
    return "\n".join(["| field | type | |", "|---|---|---|", *rows])


def _sections(sections: dict[str, dict[str, str]]) -> Iterator[str]:
    for name, entries in sections.items():
        yield f"{name}:\n\n{_list(entries)}"


def _list(entries: dict[str, str]) -> str:
    return "\n".join(f"- `{name}`: {text}" for name, text in entries.items())


def _docstring(node: ast.ClassDef | _Function) -> tuple[str, dict[str, dict[str, str]]]:
    """Split a docstring into its text and the entries of its sections, keyed by name."""
    text: list[str] = []
    sections: dict[str, dict[str, str]] = {}
    entries: dict[str, str] | None = None
    for line in (ast.get_docstring(node) or "").splitlines():
        section = _SECTION.fullmatch(line)
        if section:
            entries = sections[section[1]] = {}
        elif entries is None:
            text.append(line)
        elif line.startswith("     "):
            entries[next(reversed(entries))] += f" {line.strip()}"
        elif line:
            name, _, about = line.strip().partition(": ")
            entries[name] = about
    return _prose("\n".join(text).strip()), sections


def _prose(text: str) -> str:
    """Join each paragraph into one line. Lists of names and examples become code."""
    parts = []
    for part in text.split("\n\n"):
        if part.startswith(">>>"):
            parts.append(f"```pycon\n{part}\n```")
        elif part.startswith("    "):
            parts.append("\n".join(f"- `{name}`: {about}" for name, about in map(_entry, part.splitlines())))
        else:
            parts.append(" ".join(part.split()))
    return "\n\n".join(parts)


def _entry(line: str) -> tuple[str, str]:
    name, _, about = line.strip().partition(": ")
    return name, about
