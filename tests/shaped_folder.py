"""Folders with the shape of a model and none of its weights: headers, and files that are holes."""

import json
import math

import numpy as np
from safetensors.numpy import save_file


def llama_config(layers, width, vocabulary, mlp):
    """Return config.json of a Llama."""
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": width,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 128,
        "num_key_value_heads": width // 128,
        "vocab_size": vocabulary,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
    }


def llama_tensors(config):
    """Return the shape of each of a Llama's tensors, by its name."""
    width, mlp = config["hidden_size"], config["intermediate_size"]
    vocabulary = [config["vocab_size"], width]
    shapes = {"model.embed_tokens.weight": vocabulary, "lm_head.weight": vocabulary}
    shapes["model.norm.weight"] = [width]
    for layer in range(config["num_hidden_layers"]):
        block = f"model.layers.{layer}"
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            shapes[f"{block}.self_attn.{name}.weight"] = [width, width]
        for name, shape in (("gate", [mlp, width]), ("up", [mlp, width]), ("down", [width, mlp])):
            shapes[f"{block}.mlp.{name}_proj.weight"] = shape
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{block}.{name}.weight"] = [width]
    return shapes


def write_holes(path, shapes):
    """Write a safetensors file of bf16 tensors that takes no room."""
    offset, header = 0, {}
    for name, shape in shapes.items():
        size = 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + offset)


def write(path, content):
    """Write JSON."""
    path.write_text(json.dumps(content))


def encoder_folder(folder):
    """Write the files of a BERT that nothing loads, with a tokenizer of no class; return where."""
    folder.mkdir()
    write(folder / "config.json", {"model_type": "bert", "max_position_embeddings": 40})
    write(folder / "tokenizer_config.json", {"tokenizer_class": "TokenizersBackend"})
    write(folder / "tokenizer.json", {})
    save_file({"w": np.ones((4, 4), np.float32)}, folder / "model.safetensors")
    return folder


def shaped_folder(folder, config):
    """Write a model folder of a Llama, and a tokenizer; return how many parameters it has."""
    from workers.footprint.word_tokenizer import word_tokenizer

    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    shapes = llama_tensors(config)
    write_holes(folder / "model.safetensors", shapes)
    word_tokenizer().save_pretrained(folder)
    return sum(map(math.prod, shapes.values()))
