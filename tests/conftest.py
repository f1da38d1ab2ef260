"""Set-up of all tests."""

import os

import pytest

# Triton, the language, decides when it is imported whether it compiles kernels or runs them as numpy programs; some
# tests import it by way of PyTorch. Without a GPU it can only interpret.
os.environ.setdefault("TRITON_INTERPRET", "1")

pytest.register_assert_rewrite("tests.support")
