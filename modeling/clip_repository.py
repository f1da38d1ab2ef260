"""Paths of CLIP's files in a model repository, and their fingerprint."""

import hashlib
from pathlib import Path

from modeling.repository import built_files, file_sha256, graph_files
from samserve.domain import clip_manifest
from samserve.domain.clip_manifest import IMAGE_ENCODER, TEXT_ENCODER, TOKENIZER_FILE

CLIP_GRAPHS = (IMAGE_ENCODER, TEXT_ENCODER)


def clip_files(repository: Path) -> list[Path]:
    """The existing files that a build writes, except the manifest."""
    tokenizer = repository / TOKENIZER_FILE
    built = [file for graph in CLIP_GRAPHS for file in built_files(repository, graph)]
    return [*built, *([tokenizer] if tokenizer.is_file() else [])]


def clip_fingerprint(repository: Path) -> str:
    """`sha256:<hex>` over both graphs with their weights and the tokenizer."""
    files = [file for graph in CLIP_GRAPHS for file in graph_files(repository, graph)]
    lines = [f"{file.relative_to(repository)} {file_sha256(file)}\n" for file in [*files, repository / TOKENIZER_FILE]]
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def manifest_path(repository: Path) -> Path:
    """Path of CLIP's manifest."""
    return repository / clip_manifest.FILE_NAME
