"""The model as MLServer's process loads it: transformers with torch in a custom runtime."""

from __future__ import annotations

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse

from benchmarks.peers.encoders import transformers_torch
from benchmarks.peers.setup import Setup


class Runtime(MLModel):  # type: ignore[misc]  # mlserver need not be installed
    """Texts → vectors."""

    async def load(self) -> bool:
        """Load what the model's settings say."""
        parameters = self.settings.parameters
        assert parameters is not None and parameters.extra is not None
        encode = transformers_torch.load(Setup(**parameters.extra)).encode
        assert encode is not None
        self._encode = encode
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """(texts, hidden) float32."""
        texts = StringCodec.decode_input(payload.inputs[0])
        vectors = np.asarray(self._encode(texts), np.float32)
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("vector", vectors)])
