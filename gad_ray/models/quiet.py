"""transformers without what it prints."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast


@contextmanager
def without_progress_bars() -> Generator[None]:
    """transformers draws them for every model it reads or writes, across whatever the terminal or the log shows."""
    from transformers import modeling_gguf_pytorch_utils as gguf
    from transformers.utils import logging

    enabled, module = logging.is_progress_bar_enabled(), cast("Any", gguf)
    bar = module.tqdm
    logging.disable_progress_bar()
    # The reader of GGUF files draws its own, which nothing else switches off.
    module.tqdm = partial(bar, disable=True)
    try:
        yield
    finally:
        module.tqdm = bar
        if enabled:
            logging.enable_progress_bar()


@contextmanager
def without_warnings() -> Generator[None]:
    """transformers prints a table of what does not fit; the error says it in a line."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
