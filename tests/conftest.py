"""Set-up of all tests."""

import os

import pytest

# Triton, the language, decides when it is imported whether it compiles kernels or runs them as numpy programs; some
# tests import it by way of PyTorch. Without a GPU it can only interpret.
os.environ.setdefault("TRITON_INTERPRET", "1")

pytest.register_assert_rewrite("tests.support")

from tests.support.nothing_left import pytest_configure, pytest_sessionfinish  # noqa: E402
from tests.support.parallel import pytest_collection_modifyitems  # noqa: E402

__all__ = ["pytest_collection_modifyitems", "pytest_configure", "pytest_sessionfinish"]
