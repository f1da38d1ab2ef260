"""Names of the architectures that can be built, and what the bundled one differs in."""

BUNDLED = "tiny"
VIT_NAMES = ("vit_b", "vit_l", "vit_h")
MODEL_NAMES = (*VIT_NAMES, "vit_t", BUNDLED)

BUNDLED_MASK_GENERATION = {"pred_iou_thresh": 0.5, "stability_score_thresh": 0.7}
"""Thresholds that suit the bundled model: its score is the expected quality of a mask, and lower than SAM's."""
