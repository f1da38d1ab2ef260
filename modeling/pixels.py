"""SAM's normalisation: mean and standard deviation of ImageNet's RGB values, 0 to 255, as in Meta's Sam.__init__."""

PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)
