"""Logs on standard error: one JSON object per line, with the request id of the current call."""

from __future__ import annotations

import logging
import sys

import structlog
from structlog.tracebacks import ExceptionDictTransformer
from structlog.types import EventDict, WrappedLogger

from imagesearch_services.common.context import request_id


def configure_logs(service: str, level: str) -> None:
    """Configure structlog, and the logging module that dependencies use, with the same format."""

    def name_service(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event["service"] = service
        if current := request_id():
            event.setdefault("request_id", current)
        return event

    processors: list[structlog.types.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        name_service,
        structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
    ]
    structlog.configure(
        processors=[*processors, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(level.lower()),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_is_not_a_lost_connection)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processor=structlog.processors.JSONRenderer(), foreign_pre_chain=processors
        )
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def _is_not_a_lost_connection(record: logging.LogRecord) -> bool:
    """Return False for the error that gRPC logs if a caller disconnects during the response."""
    error = record.exc_info[1] if record.exc_info else None
    return type(error).__name__ != "ExecuteBatchError"


def logger() -> structlog.typing.FilteringBoundLogger:
    """Return the logger. Call this at each use: a stored logger would ignore `configure_logs`."""
    bound: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return bound
