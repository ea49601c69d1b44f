"""The tokenizer: a stock `CLIPTokenizer` that knows every word of the world, and spells any other text in bytes."""

import json
import re
from typing import Final

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from worker.demo_model import captions

START: Final = "<|startoftext|>"
END: Final = "<|endoftext|>"
MAX_TOKENS: Final = 48  # of a prompt, the two marks included


def words() -> list[str]:
    """Every word that a caption can hold, each once, in alphabetical order."""
    tables = (
        captions.SHAPE_WORDS,
        captions.COLOUR_WORDS,
        captions.BACKGROUND_WORDS,
        captions.SIZE_WORDS,
        captions.POSITION_WORDS,
    )
    texts = [text for table in tables for texts in table.values() for text in texts]
    texts += [*captions.GROUND_FORMS, *captions.PREFIXES, *captions.SUFFIXES, captions.VOCABULARY]
    return sorted(set(re.findall(r"[a-z]+", " ".join(texts))))


def new_tokenizer() -> CLIPTokenizer:
    """Build the tokenizer: byte pairs merged until each word of the world is one token."""
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=100_000, min_frequency=1, show_progress=False, end_of_word_suffix="</w>")
    learner.train_from_iterator(words(), trainer)
    merges = _merges(learner)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges), START, END]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_TOKENS)


def _merges(learner: Tokenizer) -> list[tuple[str, str]]:
    found = json.loads(learner.to_str())["model"]["merges"]
    return [(left, right) for left, right in found]
