"""The names that the project promised to cover, and the outcome of those that are no longer model types."""

from __future__ import annotations

from collections.abc import Mapping

MAPPED: Mapping[str, str] = {
    "bert": "dbmdz/bert-base-german-cased",
    "distilbert": "distilbert/distilbert-base-uncased",
    "roberta": "distilbert/distilroberta-base",
    "gpt_neo": "EleutherAI/gpt-neo-125M",
    "gptj": "EleutherAI/gpt-j-6B",
    "bart": "facebook/bart-base",
    "mt5": "google/mt5-small",
    "mbart": "facebook/mbart-large-50",
    "electra": "google/electra-small-discriminator",
    "longformer": "allenai/longformer-base-4096",
    "deberta-v2": "microsoft/deberta-v3-base",
    "gpt2": "microsoft/DialoGPT-small",
    "dpr": "facebook/dpr-question_encoder-single-nq-base",
    "mobilebert": "google/mobilebert-uncased",
    "mpnet": "sentence-transformers/all-mpnet-base-v2",
    "camembert": "camembert/camembert-base",
    "flaubert": "flaubert/flaubert_small_cased",
    "codegen": "Salesforce/codegen-350M-mono",
    "xlm-roberta": "sentence-transformers/paraphrase-xlm-r-multilingual-v1",
    "albert": "albert/albert-base-v2",
    "opt": "facebook/opt-125m",
    "wav2vec2": "facebook/wav2vec2-base-960h",
    "clip": "openai/clip-vit-base-patch32",
    "t5": "google/flan-t5-small",
    "blenderbot": "facebook/blenderbot-400M-distill",
    "blenderbot-small": "facebook/blenderbot-90M",
    "pegasus": "google/pegasus-xsum",
    "led": "allenai/led-base-16384",
    "bloom": "bigscience/bloom-560m",
    "vit": "google/vit-base-patch16-224",
    "deit": "facebook/deit-base-distilled-patch16-224",
    "detr": "facebook/detr-resnet-50",
    "swin": "microsoft/swin-tiny-patch4-window7-224",
    "convnext": "facebook/convnext-base-224",
    "hubert": "facebook/hubert-base-ls960",
    "squeezebert": "squeezebert/squeezebert-uncased",
    "layoutlm": "microsoft/layoutlm-base-uncased",
    "deberta": "microsoft/deberta-base",
    "whisper": "openai/whisper-small",
    "clap": "laion/larger_clap_general",
    "qwen2": "Qwen/Qwen2-7B",
    "llava": "llava-hf/llava-interleave-qwen-0.5b-hf",
    "llava_next": "llava-hf/llava-v1.6-mistral-7b-hf",
    "llama": "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
    "xclip": "microsoft/xclip-base-patch16-zero-shot",
    "videomae": "MCG-NJU/videomae-base",
    "qwen2_vl": "Qwen/Qwen2-VL-7B-Instruct",
}
"""The mapped models: model type → checkpoint."""

_NAMES = """
    albert align altclip audio-spectrogram-transformer autoformer bark bart beit bert bert-generation big_bird
    bigbird_pegasus biogpt bit blenderbot blenderbot-small blip blip-2 bloom bridgetower bros camembert canine
    chameleon chinese_clip chinese_clip_vision_model clap clip clip_text_model clip_vision_model clipseg clvp
    code_llama codegen cohere conditional_detr convbert convnext convnextv2 cpmant ctrl cvt dac data2vec-audio
    data2vec-text data2vec-vision dbrx deberta deberta-v2 decision_transformer deformable_detr deit depth_anything
    deta detr dinat dinov2 distilbert donut-swin dpr dpt efficientformer efficientnet electra encodec
    encoder-decoder ernie ernie_m esm falcon falcon_mamba fastspeech2_conformer flaubert flava fnet focalnet fsmt
    funnel fuyu gemma gemma2 git glm glpn gpt-sw3 gpt2 gpt_bigcode gpt_neo gpt_neox gpt_neox_japanese gptj
    gptsan-japanese granite granitemoe graphormer grounding-dino groupvit hiera hubert ibert idefics idefics2
    idefics3 imagegpt informer instructblip instructblipvideo jamba jetmoe jukebox kosmos-2 layoutlm layoutlmv2
    layoutlmv3 led levit lilt llama llava llava_next llava_next_video llava_onevision longformer longt5 luke lxmert
    m2m_100 mamba mamba2 marian markuplm mask2former maskformer maskformer-swin mbart mctct mega megatron-bert
    mgp-str mimi mistral mixtral mllama mobilebert mobilenet_v1 mobilenet_v2 mobilevit mobilevitv2 moshi mpnet mpt
    mra mt5 musicgen musicgen_melody mvp nat nemotron nezha nllb-moe nougat nystromformer olmo olmoe omdet-turbo
    oneformer open-llama openai-gpt opt owlv2 owlvit paligemma patchtsmixer patchtst pegasus pegasus_x perceiver
    persimmon phi phi3 phimoe pix2struct pixtral plbart poolformer pop2piano prophetnet pvt pvt_v2 qdqbert qwen2
    qwen2_audio qwen2_audio_encoder qwen2_moe qwen2_vl rag realm recurrent_gemma reformer regnet rembert resnet
    retribert roberta roberta-prelayernorm roc_bert roformer rt_detr rt_detr_resnet rwkv sam seamless_m4t
    seamless_m4t_v2 segformer seggpt sew sew-d siglip siglip_vision_model speech-encoder-decoder speech_to_text
    speech_to_text_2 speecht5 splinter squeezebert stablelm starcoder2 superpoint swiftformer swin swin2sr swinv2
    switch_transformers t5 table-transformer tapas time_series_transformer timesformer timm_backbone
    trajectory_transformer transfo-xl trocr tvlt tvp udop umt5 unispeech unispeech-sat univnet upernet van
    video_llava videomae vilt vipllava vision-encoder-decoder vision-text-dual-encoder visual_bert vit vit_hybrid
    vit_mae vit_msn vitdet vitmatte vits vivit wav2vec2 wav2vec2-bert wav2vec2-conformer wavlm whisper xclip xglm
    xlm xlm-prophetnet xlm-roberta xlm-roberta-xl xlnet xmod yolos yoso zamba zoedepth deepseek_v3 gemma3 mistral3
    phi4_multimodal qwen3 qwen3_moe qwen3_vl
"""
NAMED: frozenset[str] = frozenset(_NAMES.split())
"""Every model type of the list."""

_REMOVED = "was deprecated and left transformers with version 5"

GONE: Mapping[str, str] = {
    "code_llama": "never an architecture: CodeLlama's checkpoints are of the type llama; see that row",
    "deta": _REMOVED,
    "efficientformer": _REMOVED,
    "ernie_m": _REMOVED,
    "gptsan-japanese": _REMOVED,
    "graphormer": _REMOVED,
    "jukebox": _REMOVED,
    "mctct": _REMOVED,
    "mega": _REMOVED,
    "nat": _REMOVED,
    "nezha": _REMOVED,
    "open-llama": _REMOVED,
    "qdqbert": _REMOVED,
    "realm": _REMOVED,
    "retribert": _REMOVED,
    "speech_to_text_2": _REMOVED,
    "trajectory_transformer": _REMOVED,
    "transfo-xl": _REMOVED,
    "tvlt": _REMOVED,
    "van": _REMOVED,
    "vit_hybrid": _REMOVED,
    "xlm-prophetnet": _REMOVED,
}
"""Name of the list → the reason that it is not a model type of the installed transformers."""
