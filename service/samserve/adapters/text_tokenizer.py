"""CLIP's byte-pair encoding, by Hugging Face's `tokenizers`, from the checkpoint's own file."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from samserve.domain.errors import InvalidPrompt, TextUnavailable

_START_AND_END = 2
"""Tokens that the model takes and no text has a use for."""


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
            from tokenizers import Tokenizer  # an extra, which a server without text prompts does not have
        except ImportError:
            raise TextUnavailable(
                "the tokenizers package is not installed; run pip install -e '.[text]' in samserve's repository"
            ) from None
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # what the Rust library raises is no more than an Exception
            raise TextUnavailable(
                f"cannot read {path} ({error}); rebuild it with build_engines.py --text-model"
            ) from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._context_length = context_length

    def tokenize(self, texts: Sequence[str]) -> npt.NDArray[np.int32]:
        """See `TextTokenizer.tokenize`."""
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
