"""Thresholds of the mask generator in a model manifest."""

import json
from pathlib import Path

import pytest

from samserve.domain.manifest import InvalidManifest, ModelManifest
from samserve.gateway.settings import default_model_repository

MANIFEST = ModelManifest("tiny", "sha256:1", "fp32", 64, (4, 8, 8), 32, {}, {"pred_iou_thresh": 0.5})


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    MANIFEST.write(tmp_path)
    assert ModelManifest.read(tmp_path) == MANIFEST


def test_a_model_without_thresholds_of_its_own_has_sams(tmp_path: Path) -> None:
    path = MANIFEST.write(tmp_path)
    content = json.loads(path.read_text())
    del content["mask_generation"]
    path.write_text(json.dumps(content))
    assert ModelManifest.read(tmp_path).mask_generation == {}


@pytest.mark.parametrize("thresholds", [{"pred_iou_thresh": 1.5}, {"stability_score_thresh": "high"}, 3])
def test_thresholds_that_are_none_are_refused(thresholds: object, tmp_path: Path) -> None:
    path = MANIFEST.write(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "mask_generation": thresholds}))
    with pytest.raises(InvalidManifest):
        ModelManifest.read(tmp_path)


def test_the_bundled_model_brings_its_thresholds() -> None:
    thresholds = ModelManifest.read(default_model_repository()).mask_generation
    assert thresholds == {"pred_iou_thresh": 0.5, "stability_score_thresh": 0.7}
