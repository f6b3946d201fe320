"""A batch dialect: OpenAI's files and batches, as a server of Acme's has them."""

from __future__ import annotations

from engine.dialects.openai.batch import OpenAIBatchDialect


class AcmeBatchDialect(OpenAIBatchDialect):
    """The same wire; a place for what differs."""
