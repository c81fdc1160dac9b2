"""EfficientNet-Lite2: export of the semantic model, its calibration, and the shared backbone."""
