"""Requests with text prompts."""

from pathlib import Path
from typing import Any

from samserve.v1 import segmentation_pb2 as pb

PHOTO = (Path(__file__).parents[2] / "docs" / "photos" / "coffee.jpg").read_bytes()
# A coarse grid, and thresholds that masks pass whatever the bundled model thinks of them.
SETTINGS: dict[str, Any] = {
    "text_points_per_side": 6,
    "text_pred_iou_thresh": 0.0,
    "text_stability_score_thresh": 0.0,
}


def text_request(*texts: str, **fields: Any) -> pb.SegmentRequest:
    prompts = [pb.Prompt(text=text) for text in texts]
    return pb.SegmentRequest(**{"image": pb.Image(data=PHOTO), "prompts": prompts, **fields})
