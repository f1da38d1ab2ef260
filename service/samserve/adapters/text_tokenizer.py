"""CLIP's byte-pair encoding with Hugging Face's `tokenizers`, from the checkpoint's own file."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from samserve.domain.errors import InvalidPrompt, TextUnavailable

_START_AND_END = 2
"""Tokens that the model accepts but that texts never need."""


class ClipTokenizer:
    """Implements `TextTokenizer`.

    Args:
        path: of the `tokenizer.json`.
        context_length: of the model.

    Raises:
        TextUnavailable: `tokenizers` is not installed, or the file cannot be used.
    """

    def __init__(self, path: Path, context_length: int) -> None:
        try:
            from tokenizers import Tokenizer  # from the extra `text`, which servers without text prompts do not install
        except ImportError:
            raise TextUnavailable(
                "the tokenizers package is not installed; run pip install -e '.[text]' in samserve's repository"
            ) from None
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the Rust library raises plain Exceptions
            raise TextUnavailable(
                f"cannot read {path} ({error}); rebuild it with build_engines.py --text-model"
            ) from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._context_length = context_length

    def tokenize(self, texts: Sequence[str]) -> npt.NDArray[np.int32]:
        """Tokenise texts to int32 ids `[N, context_length]`. Raises InvalidPrompt for a text that is too long."""
        rows = [self._tokenizer.encode(text).ids for text in texts]
        for index, row in enumerate(rows):
            if len(row) > self._context_length:
                raise InvalidPrompt(
                    f"prompts[{index}].text",
                    f"has {len(row) - _START_AND_END} tokens, the limit is {self._context_length - _START_AND_END}; "
                    "shorten the text",
                )
        tokens = np.array([row + row[-1:] * (self._context_length - len(row)) for row in rows], dtype=np.int32)
        return tokens.reshape(-1, self._context_length)
