"""The fingerprint changes with everything that changes results."""

from pathlib import Path

import pytest

from modeling.architectures import ModelSizes
from modeling.repository import fingerprint, graph_path
from samserve.domain.manifest import DECODER, ENCODER

SIZES = ModelSizes(image_size=512, channels=256, grid_size=32, low_res_size=128)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for graph in (ENCODER, DECODER):
        graph_path(tmp_path, graph).parent.mkdir(parents=True)
        graph_path(tmp_path, graph).write_bytes(graph.encode())
    return tmp_path


def test_the_same_files_have_the_same_fingerprint(repository: Path) -> None:
    first = fingerprint(repository, SIZES, "fp32")
    assert first.startswith("sha256:")
    (repository / ENCODER / "config.pbtxt").write_text("max_batch_size: 8")
    assert fingerprint(repository, SIZES, "fp32") == first


def test_graphs_weights_sizes_and_precision_all_count(repository: Path) -> None:
    seen = {fingerprint(repository, SIZES, "fp32"), fingerprint(repository, SIZES, "fp16")}
    seen.add(fingerprint(repository, SIZES._replace(image_size=1024), "fp32"))
    external_data = graph_path(repository, ENCODER).with_name("model.onnx.data")
    external_data.write_bytes(b"weights")
    seen.add(fingerprint(repository, SIZES, "fp32"))
    external_data.write_bytes(b"other weights")
    seen.add(fingerprint(repository, SIZES, "fp32"))
    graph_path(repository, DECODER).write_bytes(b"another graph")
    seen.add(fingerprint(repository, SIZES, "fp32"))
    assert len(seen) == 6


def test_a_missing_graph_is_named(repository: Path) -> None:
    graph_path(repository, DECODER).unlink()
    with pytest.raises(FileNotFoundError, match="sam_mask_decoder"):
        fingerprint(repository, SIZES, "fp32")
