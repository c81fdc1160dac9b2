"""Conversion of filter messages of `imagesearch.catalog.v1` to filter trees."""

from __future__ import annotations

from imagesearch.catalog.v1 import filter_pb2
from imagesearch.type.v1 import tag_pb2
from imagesearch_services.catalog.filters import AllOf, AnyOf, Condition, Filter, Not, Operator
from imagesearch_services.common import type_messages
from imagesearch_services.common.errors import field_error, missing_field
from imagesearch_services.common.types import TagValue

OPERATORS = {
    filter_pb2.Condition.OPERATOR_EQUAL: Operator.EQUAL,
    filter_pb2.Condition.OPERATOR_NOT_EQUAL: Operator.NOT_EQUAL,
    filter_pb2.Condition.OPERATOR_LESS: Operator.LESS,
    filter_pb2.Condition.OPERATOR_LESS_OR_EQUAL: Operator.LESS_OR_EQUAL,
    filter_pb2.Condition.OPERATOR_GREATER: Operator.GREATER,
    filter_pb2.Condition.OPERATOR_GREATER_OR_EQUAL: Operator.GREATER_OR_EQUAL,
    filter_pb2.Condition.OPERATOR_HAS: Operator.HAS,
}


def read_filter(message: filter_pb2.Filter) -> Filter:
    node = message.WhichOneof("node")
    if node == "all_of":
        return AllOf(tuple(map(read_filter, message.all_of.filters)))
    if node == "any_of":
        return AnyOf(tuple(map(read_filter, message.any_of.filters)))
    if node == "negation":
        return Not(read_filter(message.negation))
    if node == "condition":
        return _read_condition(message.condition)
    raise field_error("filter", "a node must be set")


def read_required_tag(message: tag_pb2.TagValue, field: str) -> TagValue:
    """Read a tag value; raise FIELD_REQUIRED if none is set."""
    value = type_messages.read_tag(message)
    if value is None:
        raise missing_field(field)
    return value


def _read_condition(message: filter_pb2.Condition) -> Condition:
    operator = OPERATORS.get(message.operator)
    if operator is None:
        raise field_error("filter", f"{message.field}: an operator must be set")
    value = None
    if operator is not Operator.HAS:
        value = read_required_tag(message.value, "filter")
    return Condition(message.field, operator, value)
