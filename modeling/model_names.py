"""Names of the architectures that can be built."""

BUNDLED = "tiny"
VIT_NAMES = ("vit_b", "vit_l", "vit_h")
MODEL_NAMES = (*VIT_NAMES, "vit_t", BUNDLED)
