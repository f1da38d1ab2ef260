"""A class name means one thing: no class of the client has the name of a class of the server."""

import ast
from collections.abc import Iterable
from pathlib import Path

SAMSERVE = Path(__file__).parents[2] / "service" / "samserve"
CLIENT, GENERATED = SAMSERVE / "client", SAMSERVE / "v1"


def classes(files: Iterable[Path]) -> dict[str, Path]:
    return {
        node.name: file.relative_to(SAMSERVE)
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ClassDef)
    }


def test_client_and_server_share_no_class_name() -> None:
    files = [file for file in SAMSERVE.rglob("*.py") if GENERATED not in file.parents]
    client = classes(file for file in files if CLIENT in file.parents)
    server = classes(file for file in files if CLIENT not in file.parents)
    assert {"Client", "Prompt"} <= client.keys()
    assert {"Segmenter", "ObjectPrompt"} <= server.keys()
    shared = {name: (str(client[name]), str(server[name])) for name in client.keys() & server.keys()}
    assert shared == {}, "rename the server's class, the client's is public"
