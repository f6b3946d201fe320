"""Models for MLServer. Of a text, a vector is its length, the sum of its code points modulo 97, and a half."""

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse


def vectors(texts: list[str]) -> np.ndarray:
    return np.array([[len(text), sum(map(ord, text)) % 97, 0.5] for text in texts], dtype=np.float32)


class Texts(MLModel):
    """Embeds; fails for the text `fail`. Says nothing of its tensors."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        texts = StringCodec.decode_input(payload.inputs[0])
        if "fail" in texts:
            raise RuntimeError("asked to fail")
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("embedding", vectors(texts))])


class Columns(MLModel):
    """Embeds a column of texts, and gives a second tensor of the same shape."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        given = payload.inputs[0]
        if given.name != "sentences" or list(given.shape)[1:] != [1]:
            raise ValueError(f"expected a column of sentences, got {given.name} {given.shape}")
        found = vectors(StringCodec.decode_input(given))
        tensors = {"logits": np.zeros_like(found), "sentence_embedding": found}
        wanted = [each.name for each in payload.outputs or ()] or list(tensors)
        outputs = [NumpyCodec.encode_output(name, tensors[name]) for name in wanted]
        return InferenceResponse(model_name=self.name, outputs=outputs)


class Sums(MLModel):
    """Adds two tensors, and compares them."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        given = {each.name: NumpyCodec.decode_input(each) for each in payload.inputs}
        outputs = [
            NumpyCodec.encode_output("sum", given["a"] + given["b"]),
            NumpyCodec.encode_output("equal", given["a"] == given["b"]),
        ]
        return InferenceResponse(model_name=self.name, outputs=outputs)
