"""Models that no configuration of transformers builds, assembled here from parts that one builds."""

from __future__ import annotations

from typing import Any

WIDTH = 64


def vision_t5() -> Any:
    """A ViT whose states a T5 decoder reads, through transformers' VisionEncoderDecoderModel.

    transformers has no T5 with a decoder alone, which that class needs, so T5's own stack gets its head here.
    """
    from transformers import T5Config, VisionEncoderDecoderConfig, VisionEncoderDecoderModel, ViTConfig, ViTModel

    encoder = ViTConfig(
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        image_size=64,
        patch_size=16,
    )
    decoder = T5Config(
        vocab_size=512, d_model=WIDTH, d_kv=16, d_ff=128, num_layers=2, num_decoder_layers=2, num_heads=4,
        is_decoder=True, add_cross_attention=True, decoder_start_token_id=0, tie_word_embeddings=False,
    )  # fmt: skip
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.decoder_start_token_id = config.pad_token_id = 0
    return VisionEncoderDecoderModel(config, ViTModel(encoder, add_pooling_layer=False), _t5_decoder(config.decoder))


def _t5_decoder(config: Any) -> Any:
    """T5's decoder with a head for its words, as in `T5ForConditionalGeneration`."""
    import torch
    from transformers.modeling_outputs import CausalLMOutputWithCrossAttentions
    from transformers.models.t5.modeling_t5 import T5PreTrainedModel, T5Stack

    class T5Decoder(T5PreTrainedModel):  # type: ignore[misc]
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.shared = torch.nn.Embedding(config.vocab_size, config.d_model)
            self.decoder = T5Stack(config)
            self.decoder.set_input_embeddings(self.shared)
            self.lm_head = torch.nn.Linear(config.d_model, config.vocab_size, bias=False)
            self.post_init()

        def get_output_embeddings(self) -> Any:
            return self.lm_head

        def forward(self, **inputs: Any) -> Any:
            inputs.pop("return_dict", None)
            found = self.decoder(**inputs)
            logits = self.lm_head(found.last_hidden_state)
            return CausalLMOutputWithCrossAttentions(logits=logits, past_key_values=found.past_key_values)

    return T5Decoder(config)


def stable_diffusion() -> Any:
    """One step of Stable Diffusion: text encoder, denoising network and image decoder, in one pass.

    Raises ImportError without diffusers.
    """
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    text = CLIPTextConfig(
        vocab_size=512, hidden_size=WIDTH, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4
    )

    class OneStep(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.config = text
            self.text_encoder = CLIPTextModel(text)
            self.unet = UNet2DConditionModel(
                sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(32, WIDTH),
                down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
                up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), cross_attention_dim=WIDTH, attention_head_dim=8,
            )  # fmt: skip
            self.vae = AutoencoderKL(
                block_out_channels=(32, WIDTH), in_channels=3, out_channels=3, latent_channels=4,
                down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
            )  # fmt: skip

        def forward(self, input_ids: Any, latents: Any, timestep: Any) -> dict[str, Any]:
            states = self.text_encoder(input_ids).last_hidden_state
            noise = self.unet(latents, timestep, encoder_hidden_states=states).sample
            return {"noise": noise, "picture": self.vae.decode(latents - noise).sample}

    return OneStep()
