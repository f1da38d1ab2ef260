"""The API reference: complete, up to date, and its drift found."""

from pathlib import Path

import pytest

import samserve.client
from samserve.api import RPCS
from tools.reference import proto, python
from tools.reference.__main__ import REFERENCE, pages


def test_the_committed_pages_are_up_to_date() -> None:
    assert REFERENCE.stale() == [], "run `make reference` and commit the pages"


def test_every_rpc_message_and_field_is_on_the_pages() -> None:
    text = "\n".join(proto.pages().values())
    for name, rpc in RPCS.items():
        assert f"| `{name}` (" in text
        for message in (rpc.input_type, rpc.output_type):
            assert text.count(f"\n## {message.name}\n") == 1
            assert all(f"| `{field.name}` |" in text for field in message.fields)


def test_comments_of_the_proto_are_kept() -> None:
    texts = proto.pages()
    assert "All frames of a stream have the same size." in texts["proto-gaze.md"]
    assert "`sha256:<64 hex digits>` of the encoded file" in texts["proto.md"]


def test_every_exported_name_of_the_client_has_a_section() -> None:
    text = "\n".join(python.pages().values())
    for name in samserve.client.__all__:
        assert text.count(f"\n## {name}\n") == 1


def test_signatures_are_those_of_the_source() -> None:
    page = python.pages()["python.md"]
    assert "embed(image: ImageLike, *, timeout_seconds: float | None = None) -> EmbeddedImage" in page
    assert "Client(target: str, *, tenant: str = ''," in page


def test_an_altered_a_missing_and_a_surplus_page_are_found(tmp_path: Path) -> None:
    REFERENCE.write(tmp_path)
    assert REFERENCE.stale(tmp_path) == []
    (tmp_path / "proto.md").write_text("old")
    (tmp_path / "python.md").unlink()
    (tmp_path / "removed.md").write_text("")
    assert REFERENCE.stale(tmp_path) == ["proto.md", "python.md", "removed.md"]
    REFERENCE.write(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == pages()


def test_an_rpc_without_a_page_is_refused() -> None:
    file = proto.described()
    file.service[0].method.add(name="NewRpc", input_type=".samserve.v1.Image", output_type=".samserve.v1.Image")
    with pytest.raises(ValueError, match=r"proto\.py: PAGES and the proto differ in NewRpc"):
        proto.pages(file)


def test_an_export_without_a_page_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samserve.client, "__all__", [*samserve.client.__all__, "NewName"])
    with pytest.raises(ValueError, match=r"python\.py: PAGES and samserve\.client differ in NewName"):
        python.pages()


def test_pages_are_short_enough_to_read() -> None:
    assert max(len(path.read_text().splitlines()) for path in REFERENCE.path.glob("*.md")) < 200
