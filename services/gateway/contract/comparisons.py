"""Conversion of CompareImages messages. Reading validates requests and raises ServiceError."""

from __future__ import annotations

from typing import cast

from imagesearch.gateway.v1 import search_pb2
from imagesearch_services.common import type_messages
from imagesearch_services.gateway.contract import limits
from imagesearch_services.gateway.scoring.comparison import ComparisonAnswer


def read_comparison(request: search_pb2.CompareImagesRequest) -> tuple[bytes, bytes]:
    """Return the two picture files."""
    return (
        limits.check_picture(request.image_a.content, field="image_a.content"),
        limits.check_picture(request.image_b.content, field="image_b.content"),
    )


def write_comparison(answer: ComparisonAnswer) -> search_pb2.CompareImagesResponse:
    pair = answer.pair
    return search_pb2.CompareImagesResponse(
        verdict=cast("search_pb2.Verdict.ValueType", int(answer.verdict)),
        score=answer.score,
        false_positive_rate=answer.false_positive_rate,
        likely_edits=answer.likely_edits,
        measures=pair.measures,
        info_a=type_messages.write_picture_info(pair.infos[0]),
        info_b=type_messages.write_picture_info(pair.infos[1]),
        overlay=pair.overlay,
        timings=[type_messages.write_timing(step) for step in answer.timings],
    )
