"""Writes small models of the families whose image placeholders are known without the engine.

    media_models.py TOKENIZER DIRECTORY

TOKENIZER is fixtures/vllm/model/tokenizer.json; below DIRECTORY come `tokenizer.json`, the same
with the tokens that images take, and one folder per model without it. The models have real
processors and no weights (`--load-format dummy`).
"""

import json
import sys
from pathlib import Path

SPECIAL = [
    "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
    "<image>", "[IMG]", "[IMG_BREAK]", "[IMG_END]",
    "<start_of_image>", "<end_of_image>", "<image_soft_token>",
]
LINES = ["\n", "\n\n", "\n\n\n", "\n\n\n\n"]
FIRST = 2048
IDS = {token: FIRST + place for place, token in enumerate(SPECIAL + LINES)}
VOCAB = 2080

TEXT = {
    "vocab_size": VOCAB, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
    "max_position_embeddings": 16384, "rms_norm_eps": 1e-5, "bos_token_id": 0, "eos_token_id": 2,
    "torch_dtype": "bfloat16",
}
TOKENIZER = {
    "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|begin|>",
    "eos_token": "<|im_end|>", "pad_token": "<|pad|>", "model_max_length": 16384,
    "clean_up_tokenization_spaces": False,
}
MEAN = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "do_normalize": True,
        "do_rescale": True, "do_resize": True, "do_convert_rgb": True}

PARTS = """{%- for message in messages -%}
{{ '<|im_start|>' + message.role + '\\n' }}
{%- if message.content is string -%}{{ message.content }}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type == 'image' -%}IMAGE
{%- elif part.type == 'text' -%}{{ part.text }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{ '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
"""
LINE = """{%- for message in messages -%}
{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
"""


def qwen(model_type, architecture, vision, processor, tokenizer="Qwen2TokenizerFast"):
    ids = {
        "vision_start_token_id": IDS["<|vision_start|>"],
        "vision_end_token_id": IDS["<|vision_end|>"],
        "image_token_id": IDS["<|image_pad|>"], "video_token_id": IDS["<|video_pad|>"],
    }
    rope = {"rope_theta": 10000.0, "rope_type": "default", "mrope_section": [4, 6, 6]}
    text = TEXT | {"model_type": model_type + "_text", "rope_scaling": rope}
    config = {"architectures": [architecture], "model_type": model_type, "text_config": text,
              "vision_config": vision | {"model_type": model_type}, **ids,
              "torch_dtype": "bfloat16"}
    return {
        "config.json": config,
        "preprocessor_config.json": processor,
        "tokenizer_config.json": TOKENIZER | {"extra_special_tokens": {
            "image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}},
        "chat_template.jinja": PARTS.replace(
            "IMAGE", "<|vision_start|><|image_pad|><|vision_end|>"),
    }


def qwen2_vl():
    vision = {"depth": 1, "embed_dim": 64, "hidden_size": 128, "num_heads": 2, "mlp_ratio": 2,
              "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2,
              "in_channels": 3}
    processor = MEAN | {"image_processor_type": "Qwen2VLImageProcessor",
                        "processor_class": "Qwen2VLProcessor", "min_pixels": 3136,
                        "max_pixels": 401408, "patch_size": 14, "merge_size": 2,
                        "temporal_patch_size": 2}
    return qwen("qwen2_vl", "Qwen2VLForConditionalGeneration", vision, processor)


def qwen2_5_vl():
    vision = {"depth": 2, "hidden_size": 64, "out_hidden_size": 128, "intermediate_size": 128,
              "num_heads": 2, "patch_size": 14, "spatial_merge_size": 2,
              "temporal_patch_size": 2, "window_size": 112, "fullatt_block_indexes": [1],
              "in_channels": 3}
    processor = MEAN | {"image_processor_type": "Qwen2VLImageProcessor",
                        "processor_class": "Qwen2_5_VLProcessor", "min_pixels": 3136,
                        "max_pixels": 200704, "patch_size": 14, "merge_size": 2,
                        "temporal_patch_size": 2}
    return qwen("qwen2_5_vl", "Qwen2_5_VLForConditionalGeneration", vision, processor)


def qwen2_5_vl_line():
    return qwen2_5_vl() | {"chat_template.jinja": LINE}


def qwen3_vl():
    vision = {"depth": 2, "hidden_size": 64, "out_hidden_size": 128, "intermediate_size": 128,
              "num_heads": 2, "patch_size": 16, "spatial_merge_size": 2,
              "temporal_patch_size": 2, "num_position_embeddings": 256, "in_channels": 3,
              "deepstack_visual_indexes": [0]}
    processor = MEAN | {"image_processor_type": "Qwen2VLImageProcessorFast",
                        "processor_class": "Qwen3VLProcessor", "patch_size": 16,
                        "merge_size": 2, "temporal_patch_size": 2,
                        "size": {"longest_edge": 262144, "shortest_edge": 4096}}
    files = qwen("qwen3_vl", "Qwen3VLForConditionalGeneration", vision, processor)
    video = {"video_processor_type": "Qwen3VLVideoProcessor", "patch_size": 16, "merge_size": 2,
             "temporal_patch_size": 2, "size": {"longest_edge": 262144, "shortest_edge": 4096}}
    return files | {"video_preprocessor_config.json": MEAN | video}


def llava(vision, strategy, size):
    config = {"architectures": ["LlavaForConditionalGeneration"], "model_type": "llava",
              "text_config": TEXT | {"model_type": "llama"}, "vision_config": vision,
              "image_token_index": IDS["<image>"], "projector_hidden_act": "gelu",
              "vision_feature_layer": -2, "vision_feature_select_strategy": strategy,
              "torch_dtype": "bfloat16"}
    clip = vision["model_type"] == "clip_vision_model"
    kind = "CLIPImageProcessor" if clip else "SiglipImageProcessor"
    processor = MEAN | {"image_processor_type": kind, "processor_class": "LlavaProcessor",
                        "size": {"shortest_edge": size} if clip else
                        {"height": size, "width": size}}
    if clip:
        processor |= {"crop_size": {"height": size, "width": size}, "do_center_crop": True}
    return {
        "config.json": config,
        "preprocessor_config.json": processor,
        "processor_config.json": {
            "processor_class": "LlavaProcessor", "patch_size": vision["patch_size"],
            "image_token": "<image>", "vision_feature_select_strategy": strategy,
            "num_additional_image_tokens": 1 if clip else 0},
        "tokenizer_config.json": TOKENIZER | {
            "processor_class": "LlavaProcessor", "extra_special_tokens": {"image_token": "<image>"}},
        "chat_template.jinja": PARTS.replace("IMAGE", "<image>"),
    }


def llava_clip():
    vision = {"model_type": "clip_vision_model", "hidden_size": 64, "intermediate_size": 128,
              "num_attention_heads": 2, "num_hidden_layers": 2, "image_size": 336,
              "patch_size": 14, "projection_dim": 64, "vocab_size": 32}
    return llava(vision, "default", 336) | {"chat_template.jinja": LINE}


def llava_siglip():
    vision = {"model_type": "siglip_vision_model", "hidden_size": 64, "intermediate_size": 128,
              "num_attention_heads": 2, "num_hidden_layers": 2, "image_size": 384,
              "patch_size": 14}
    return llava(vision, "full", 384)


def pixtral():
    vision = {"model_type": "pixtral", "hidden_size": 64, "intermediate_size": 128,
              "num_attention_heads": 2, "num_hidden_layers": 2, "head_dim": 32,
              "image_size": 512, "patch_size": 16, "rope_theta": 10000.0}
    config = {"architectures": ["LlavaForConditionalGeneration"], "model_type": "llava",
              "text_config": TEXT | {"model_type": "mistral"}, "vision_config": vision,
              "image_token_index": IDS["[IMG]"], "projector_hidden_act": "gelu",
              "vision_feature_layer": -1, "vision_feature_select_strategy": "full",
              "torch_dtype": "bfloat16"}
    return {
        "config.json": config,
        "preprocessor_config.json": MEAN | {
            "image_processor_type": "PixtralImageProcessor", "processor_class": "PixtralProcessor",
            "patch_size": {"height": 16, "width": 16}, "size": {"longest_edge": 512}},
        "processor_config.json": {
            "processor_class": "PixtralProcessor", "patch_size": 16, "image_token": "[IMG]",
            "image_break_token": "[IMG_BREAK]", "image_end_token": "[IMG_END]"},
        "tokenizer_config.json": TOKENIZER,
        "chat_template.jinja": PARTS.replace("IMAGE", "[IMG]"),
    }


def mistral3():
    files = pixtral()
    vision = files["config.json"]["vision_config"] | {"image_size": 1540, "patch_size": 14}
    config = files["config.json"] | {
        "architectures": ["Mistral3ForConditionalGeneration"], "model_type": "mistral3",
        "vision_config": vision, "spatial_merge_size": 2}
    return files | {
        "config.json": config,
        "preprocessor_config.json": files["preprocessor_config.json"] | {
            "patch_size": {"height": 14, "width": 14}, "size": {"longest_edge": 700}},
        "processor_config.json": files["processor_config.json"] | {
            "patch_size": 14, "spatial_merge_size": 2},
    }


def gemma3():
    vision = {"model_type": "siglip_vision_model", "hidden_size": 64, "intermediate_size": 128,
              "num_attention_heads": 2, "num_hidden_layers": 2, "image_size": 224,
              "patch_size": 14}
    text = TEXT | {"model_type": "gemma3_text", "sliding_window": 512,
                   "query_pre_attn_scalar": 32, "layer_types":
                   ["sliding_attention", "full_attention"]}
    config = {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3",
              "text_config": text, "vision_config": vision, "mm_tokens_per_image": 64,
              "boi_token_index": IDS["<start_of_image>"],
              "eoi_token_index": IDS["<end_of_image>"],
              "image_token_index": IDS["<image_soft_token>"], "torch_dtype": "bfloat16"}
    return {
        "config.json": config,
        "preprocessor_config.json": MEAN | {
            "image_processor_type": "Gemma3ImageProcessor", "processor_class": "Gemma3Processor",
            "image_seq_length": 64, "size": {"height": 224, "width": 224}},
        "processor_config.json": {"processor_class": "Gemma3Processor", "image_seq_length": 64},
        "tokenizer_config.json": TOKENIZER | {"extra_special_tokens": {
            "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>",
            "image_token": "<image_soft_token>"}},
        "chat_template.jinja": PARTS.replace("IMAGE", "<start_of_image>"),
    }


MODELS = [qwen2_vl, qwen2_5_vl, qwen2_5_vl_line, qwen3_vl, llava_clip, llava_siglip, pixtral,
          mistral3, gemma3]


def write(tokenizer, directory):
    tokenizer = json.loads(Path(tokenizer).read_text())
    for token, number in IDS.items():
        tokenizer["added_tokens"].append({
            "id": number, "content": token, "single_word": False, "lstrip": False,
            "rstrip": False, "normalized": False, "special": token in SPECIAL})
    directory.mkdir(parents=True, exist_ok=True)
    text = json.dumps(tokenizer, ensure_ascii=False, indent=1)
    (directory / "tokenizer.json").write_text(text)
    for model in MODELS:
        folder = directory / model.__name__
        folder.mkdir(exist_ok=True)
        for name, content in model().items():
            text = content if isinstance(content, str) else json.dumps(content, indent=1) + "\n"
            (folder / name).write_text(text)


if __name__ == "__main__":
    write(sys.argv[1], Path(sys.argv[2]))
