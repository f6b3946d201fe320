"""The names of what can be asked: OpenAI's operations, and the tasks of Hugging Face's Inference API."""

from typing import Literal

Task = Literal[
    # OpenAI's wire is the canonical form of these.
    "chat",
    "completion",
    "embedding",
    "rerank",
    "response",
    "moderation",
    "image",
    "image-edit",
    "speech",
    "transcription",
    "audio-translation",
    # Its body is a chat's; it counts the tokens of the prompt and answers nothing.
    "token-count",
    # Hugging Face's `inputs` and `parameters` are the canonical form of these.
    "fill-mask",
    "text-classification",
    "token-classification",
    "zero-shot-classification",
    "question-answering",
    "table-question-answering",
    "summarization",
    "translation",
    "audio-classification",
    "zero-shot-audio-classification",
    "text-to-audio",
    "image-classification",
    "zero-shot-image-classification",
    "object-detection",
    "zero-shot-object-detection",
    "image-segmentation",
    "mask-generation",
    "depth-estimation",
    "image-to-image",
    "image-to-text",
    "image-feature-extraction",
    "visual-question-answering",
    "document-question-answering",
    "video-classification",
    "time-series-forecasting",
    "sparse-embedding",
    "token-embedding",
    "sentence-similarity",
    "retrieval",
    "dataprep",
    # What a model of any kind takes and gives, as it is: named tensors.
    "tensors",
]
