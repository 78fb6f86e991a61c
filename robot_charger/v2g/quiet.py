"""Imports of packages that reconfigure logging."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_import() -> Iterator[None]:
    """For the import of a package that reconfigures logging: the root logger and disabled loggers stay as they were."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    disabled = [logger for logger in _loggers() if logger.disabled]
    try:
        yield
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers
        for logger in disabled:
            logger.disabled = True


def _loggers() -> list[logging.Logger]:
    return [logger for logger in logging.root.manager.loggerDict.values() if isinstance(logger, logging.Logger)]
