"""A small CLIP with random weights, as a checkpoint in Hugging Face's layout."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import CLIPConfig, CLIPModel

START, END = "<|startoftext|>", "<|endoftext|>"
IMAGE_SIZE = 32
CONTEXT_LENGTH = 16
EMBEDDING_WIDTH = 24


def write_checkpoint(folder: Path, seed: int = 7) -> Path:
    """Write configuration, weights and a tokenizer that was trained on a few words; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer()
    start, end = tokenizer.token_to_id(START), tokenizer.token_to_id(END)
    layers = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    tokens = {"bos_token_id": start, "eos_token_id": end, "pad_token_id": end}
    config = CLIPConfig(
        text_config={
            **layers,
            **tokens,
            "vocab_size": tokenizer.get_vocab_size(),
            "max_position_embeddings": CONTEXT_LENGTH,
        },
        vision_config={**layers, "image_size": IMAGE_SIZE, "patch_size": 8},
        projection_dim=EMBEDDING_WIDTH,
    )
    torch.manual_seed(seed)
    model = CLIPModel(config)
    with torch.no_grad():
        # As they are drawn for training, all texts and all images are nearly the same to it.
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 0.2)
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def _tokenizer() -> Tokenizer:
    """CLIP's pipeline, with a vocabulary of its own."""
    tokenizer = Tokenizer(models.BPE(continuing_subword_prefix="", end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(["a dog on the grass", "a cup of coffee", "a red truck in the street"] * 4, trainer)
    vocabulary = tokenizer.get_vocab()
    tokenizer.post_processor = processors.RobertaProcessing(
        (END, vocabulary[END]), (START, vocabulary[START]), trim_offsets=False
    )
    return tokenizer
