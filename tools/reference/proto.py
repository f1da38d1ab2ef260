"""Pages of the proto: the service with its rpcs, messages and enums, with their comments."""

import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)

PROTOS = Path(__file__).parents[2] / "protos"
SOURCE = "samserve/v1/segmentation.proto"
INDEX = "proto.md"

PAGES = {
    "proto-images.md": ("One image", ("EmbedImage", "GetEmbedding", "Segment", "GetServerInfo")),
    "proto-automatic.md": ("Everything in an image", ("GenerateMasks", "DetectEdges")),
    "proto-sessions.md": ("Interactive sessions and tracking", ("SegmentStream", "TrackObjects")),
    "proto-gaze.md": ("Gaze", ("SegmentGaze",)),
}
"""Title and rpcs of each page. Messages that several pages use are on the index page."""

_GENERATED = "<!-- Generated from {source} by `make reference`; do not edit. -->"

# Field numbers of descriptor.proto, from which the paths of source locations are built.
_FILE_MESSAGES, _FILE_ENUMS, _FILE_SERVICES = 4, 5, 6
_MESSAGE_FIELDS, _MESSAGE_ONEOFS, _ENUM_VALUES, _SERVICE_METHODS = 2, 8, 2, 2


def described() -> FileDescriptorProto:
    """Compile the proto to a descriptor with comments.

    Raises:
        subprocess.CalledProcessError: the proto does not compile.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "descriptors"
        options = [f"-I{PROTOS}", f"--descriptor_set_out={path}", "--include_source_info"]
        subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *options, SOURCE], check=True)
        return FileDescriptorSet.FromString(path.read_bytes()).file[0]


def pages(file: FileDescriptorProto | None = None) -> dict[str, str]:
    """Render each page, keyed by file name.

    Raises:
        ValueError: an rpc is on no page, or the proto nests types.
    """
    return _Reference(described() if file is None else file).pages()


@dataclass(frozen=True)
class _Commented:
    """A message or an enum with its comments and those of its members."""

    type: DescriptorProto | EnumDescriptorProto
    path: tuple[int, ...]


class _Reference:
    def __init__(self, file: FileDescriptorProto) -> None:
        if any(message.nested_type or message.enum_type for message in file.message_type):
            raise ValueError("nested messages and enums have no place on the pages yet")
        self._file = file
        self._service = file.service[0]
        self._comments = {
            tuple(location.path): location.leading_comments.strip() for location in file.source_code_info.location
        }
        prefix = f".{file.package}."
        messages = [_Commented(each, (_FILE_MESSAGES, i)) for i, each in enumerate(file.message_type)]
        enums = [_Commented(each, (_FILE_ENUMS, i)) for i, each in enumerate(file.enum_type)]
        self._types = {prefix + each.type.name: each for each in [*messages, *enums]}
        self._page_of_rpc = {rpc: page for page, (_, rpcs) in PAGES.items() for rpc in rpcs}
        missing = {method.name for method in self._service.method} ^ self._page_of_rpc.keys()
        if missing:
            raise ValueError(f"tools/reference/proto.py: PAGES and the proto differ in {', '.join(sorted(missing))}")
        self._page_of_type = self._places()

    def pages(self) -> dict[str, str]:
        texts = {INDEX: self._index()}
        for page, (title, rpcs) in PAGES.items():
            methods = [method for method in self._service.method if method.name in rpcs]
            parts = [_GENERATED.format(source=f"protos/{SOURCE}"), f"# {title}", f"Part of the [proto]({INDEX})."]
            parts += ["| rpc | |\n|---|---|\n" + "\n".join(self._rpc(method, page) for method in methods)]
            texts[page] = "\n\n".join([*parts, *self._types_on(page)]) + "\n"
        return texts

    def _index(self) -> str:
        parts = [_GENERATED.format(source=f"protos/{SOURCE}"), f"# {self._file.package}.{self._service.name}"]
        parts += [_paragraphs(self._comment((_FILE_SERVICES, 0)))]
        rows = [self._rpc(method, INDEX) for method in self._service.method]
        parts += ["| rpc | |\n|---|---|\n" + "\n".join(rows), "Messages that several of the pages above use:"]
        return "\n\n".join([*parts, *self._types_on(INDEX)]) + "\n"

    def _places(self) -> dict[str, str]:
        users: dict[str, set[str]] = {name: set() for name in self._types}
        for method in self._service.method:
            for name in self._reached((method.input_type, method.output_type)):
                users[name].add(self._page_of_rpc[method.name])
        return {name: next(iter(pages)) if len(pages) == 1 else INDEX for name, pages in users.items()}

    def _reached(self, names: Iterable[str]) -> set[str]:
        reached: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name in reached or name not in self._types:
                continue
            reached.add(name)
            message = self._types[name].type
            if isinstance(message, DescriptorProto):
                waiting += [field.type_name for field in message.field]
        return reached

    def _rpc(self, method: MethodDescriptorProto, page: str) -> str:
        asked, answered = self._link(method.input_type, page), self._link(method.output_type, page)
        asked = f"stream {asked}" if method.client_streaming else asked
        answered = f"stream {answered}" if method.server_streaming else answered
        comment = self._comment((_FILE_SERVICES, 0, _SERVICE_METHODS, list(self._service.method).index(method)))
        return f"| `{method.name}` ({asked}) returns ({answered}) | {_cell(comment)} |"

    def _types_on(self, page: str) -> Iterator[str]:
        for name, each in self._types.items():
            if self._page_of_type[name] != page:
                continue
            comment = self._comment(each.path)
            yield f"## {each.type.name}" + (f"\n\n{_paragraphs(comment)}" if comment else "")
            if isinstance(each.type, EnumDescriptorProto):
                rows = [
                    f"| {value.number} | `{value.name}` | {_cell(self._comment((*each.path, _ENUM_VALUES, i)))} |"
                    for i, value in enumerate(each.type.value)
                ]
                yield "| number | value | |\n|---|---|---|\n" + "\n".join(rows)
            elif each.type.field:
                rows = [self._field(each, i, field, page) for i, field in enumerate(each.type.field)]
                yield "| number | field | type | |\n|---|---|---|---|\n" + "\n".join(rows)

    def _field(self, message: _Commented, index: int, field: FieldDescriptorProto, page: str) -> str:
        kind = self._link(field.type_name, page) if field.type_name else f"`{_scalar(field)}`"
        comment = _cell(self._comment((*message.path, _MESSAGE_FIELDS, index)))
        if field.label == FieldDescriptorProto.LABEL_REPEATED:
            kind = f"repeated {kind}"
        elif field.proto3_optional:
            kind = f"optional {kind}"
        elif field.HasField("oneof_index"):
            assert isinstance(message.type, DescriptorProto)
            kind = f"{kind}, one of `{message.type.oneof_decl[field.oneof_index].name}`"
            about = _cell(self._comment((*message.path, _MESSAGE_ONEOFS, field.oneof_index)))
            first = next(i for i, each in enumerate(message.type.field) if each.oneof_index == field.oneof_index)
            comment = " ".join(part for part in (about if index == first else "", comment) if part)
        return f"| {field.number} | `{field.name}` | {kind} | {comment} |"

    def _link(self, type_name: str, page: str) -> str:
        name = type_name.rpartition(".")[2]
        if type_name not in self._types:
            return f"`{type_name.lstrip('.')}`"
        target = self._page_of_type[type_name]
        return f"[{name}]({'' if target == page else target}#{name.lower()})"

    def _comment(self, path: tuple[int, ...]) -> str:
        return self._comments.get(path, "")


def _scalar(field: FieldDescriptorProto) -> str:
    return FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()


def _cell(comment: str) -> str:
    return " ".join(comment.split()).replace("|", "\\|")


def _paragraphs(comment: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in comment.split("\n\n"))
