"""ONNX models as torch modules: read, made concrete for the shapes of example inputs, operation by operation."""
