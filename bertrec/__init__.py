"""What the stages of bertrec agree on: tensors, text, signals, ranking, bundles, engines, errors.

Imports no torch and no transformers; ONNX Runtime is imported only by :mod:`bertrec.engine`.
"""

__version__ = "0.1.0"
