"""Networks as files for other runtimes: MegEngine Lite's .mge and ONNX."""
