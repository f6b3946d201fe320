"""A model for MLServer: each text's vector is its length, the sum of its code points modulo 97, and a half."""

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Texts(MLModel):
    """Fails for the text `fail`."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        texts = StringCodec.decode_input(payload.inputs[0])
        if "fail" in texts:
            raise RuntimeError("asked to fail")
        vectors = np.array([[len(text), sum(map(ord, text)) % 97, 0.5] for text in texts], dtype=np.float32)
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("embedding", vectors)])
