"""Summaries and translations by encoder-decoders."""

from __future__ import annotations

from typing import Any

from engine.core.errors import TooLong
from engine.runtimes.pipelines.base import OwnPipeline
from engine.tasks import generation


class TextToText(OwnPipeline):
    """Reads a text and writes another; subclasses define the tasks."""

    models = ("AutoModelForSeq2SeqLM",)
    result: str
    """The name of the text in an output, as in Hugging Face's Inference API."""
    _pipeline_calls_generate = True
    _load_tokenizer = True

    def _sanitize_parameters(self, **asked: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        before = {name: asked[name] for name in ("src_lang", "tgt_lang", "truncation") if asked.get(name) is not None}
        after = {name: asked[name] for name in ("clean_up_tokenization_spaces",) if asked.get(name) is not None}
        return before, generation.options(asked), after

    def preprocess(self, text: str, truncation: Any = False, **languages: str) -> dict[str, Any]:
        """Returns the tokens. Raises TooLong, and ValueError for languages that the model does not know."""
        text = self._prefix(languages) + text
        cut = {"truncation": True, "max_length": self._most()} if truncation and self._most() else {}
        if languages and hasattr(self.tokenizer, "_build_translation_inputs"):
            made = self.tokenizer._build_translation_inputs(
                text, src_lang=languages.get("src_lang"), tgt_lang=languages.get("tgt_lang"), return_tensors="pt", **cut
            )
        else:
            made = self.tokenizer(text, return_tensors="pt", **cut)
        length, most = made["input_ids"].shape[1], self._most()
        if most and length > most:
            raise TooLong(
                f"the text has {length} tokens, and the model reads {most}. "
                f"Next: shorten it, or set body.parameters.truncation=true"
            )
        kept = {name: made[name] for name in ("input_ids", "attention_mask")}
        if "forced_bos_token_id" in made:
            kept["forced_bos_token_id"] = int(made["forced_bos_token_id"])
        return kept

    def _forward(self, model_inputs: dict[str, Any], **options: Any) -> dict[str, Any]:
        language = model_inputs.pop("forced_bos_token_id", None)
        if language is not None:  # rows of a batch agree in it
            options["forced_bos_token_id"] = language[0] if isinstance(language, list) else language
        settings = self._own_settings()
        if "max_new_tokens" in options:
            settings.pop("max_length", None)
        return {"output_ids": self.generated(dict(model_inputs), {**settings, **options})}

    def postprocess(self, model_outputs: dict[str, Any], clean_up_tokenization_spaces: bool = False) -> dict[str, str]:
        """Returns the text, by its name."""
        text = self.tokenizer.decode(
            model_outputs["output_ids"][0],
            skip_special_tokens=True,
            clean_up_tokenization_spaces=clean_up_tokenization_spaces,
        )
        return {self.result: text}

    def _most(self) -> int | None:
        """Returns the tokens that the model reads; None: its positions are relative, so there is no bound."""
        said = [self.tokenizer.model_max_length, getattr(self.model.config, "max_position_embeddings", None)]
        known = [int(each) for each in said if each is not None and each < 1_000_000]
        return min(known) if known else None

    def _specific(self, languages: dict[str, str]) -> dict[str, Any]:
        """Returns the settings of one task in a T5's config: its prefix, and settings for the generation."""
        known = getattr(self.model.config, "task_specific_params", None) or {}
        name = self.task_name
        if languages:
            name = f"translation_{languages.get('src_lang')}_to_{languages.get('tgt_lang')}"
        found: dict[str, Any] = known.get(name) or {}
        return found

    task_name = ""

    def _prefix(self, languages: dict[str, str]) -> str:
        return str(self._specific(languages).get("prefix") or "")

    def _own_settings(self) -> dict[str, Any]:
        return {name: value for name, value in self._specific({}).items() if name in generation.NAMES}


class Summarization(TextToText):
    """Shortens a text."""

    result = "summary_text"
    task_name = "summarization"


class Translation(TextToText):
    """Translates a text; models that know several languages take them from `src_lang` and `tgt_lang`."""

    result = "translation_text"
    task_name = "translation"
