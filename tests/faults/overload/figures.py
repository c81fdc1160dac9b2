"""Figures of recorded calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from tests.faults.overload.driver import Outcome


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the smallest value that at least a share of the values does not exceed."""
    if not values:
        return None
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1)


def spread_ms(outcomes: Iterable[Outcome]) -> dict[str, Any]:
    durations_ms = [outcome.duration_ms for outcome in outcomes]
    return {
        "count": len(durations_ms),
        "p50_ms": percentile(durations_ms, 0.5),
        "p99_ms": percentile(durations_ms, 0.99),
        "max_ms": round(max(durations_ms), 1) if durations_ms else None,
    }


def summary(outcomes: Sequence[Outcome], seconds: float) -> dict[str, Any]:
    """Return the figures of one phase."""
    admitted = [outcome for outcome in outcomes if outcome.is_admitted]
    refused = [outcome for outcome in outcomes if outcome.is_refused]
    retry_after_s = [outcome.retry_after_s for outcome in refused if outcome.retry_after_s]
    kinds = sorted({outcome.kind for outcome in outcomes})
    callers = sorted({outcome.caller for outcome in outcomes})
    return {
        "seconds": round(seconds, 1),
        "offered_per_s": round(len(outcomes) / seconds, 2),
        "admitted_per_s": round(len(admitted) / seconds, 2),
        "admitted": spread_ms(admitted),
        "admitted_by_kind": {
            kind: spread_ms(outcome for outcome in admitted if outcome.kind == kind)
            for kind in kinds
        },
        "admitted_share_by_caller": {
            caller: round(
                sum(outcome.caller == caller for outcome in admitted)
                / sum(outcome.caller == caller for outcome in outcomes),
                3,
            )
            for caller in callers
        },
        "refused": spread_ms(refused)
        | {
            "p999_ms": percentile([outcome.duration_ms for outcome in refused], 0.999),
            "within_50_ms": sum(outcome.duration_ms <= 50 for outcome in refused),
            "with_retry_info": len(retry_after_s),
            "retry_after_s": [min(retry_after_s), max(retry_after_s)] if retry_after_s else None,
            "by_kind": dict(Counter(outcome.kind for outcome in refused)),
        },
        "endings": dict(
            Counter(f"{outcome.code} {outcome.reason}".strip() for outcome in outcomes)
        ),
    }


def verdict(at_capacity: dict[str, Any], overload: dict[str, Any]) -> dict[str, Any]:
    """Compare the figures of an overload with those at the capacity."""
    before, after = at_capacity["admitted_by_kind"], overload["admitted_by_kind"]
    refused = overload["refused"]
    return {
        "p99_ratio": _ratio(overload["admitted"]["p99_ms"], at_capacity["admitted"]["p99_ms"]),
        "p99_ratio_by_kind": {
            kind: _ratio(after[kind]["p99_ms"], before[kind]["p99_ms"])
            for kind in sorted(before.keys() & after.keys())
        },
        "admitted_ratio": _ratio(overload["admitted_per_s"], at_capacity["admitted_per_s"]),
        "refused_within_50_ms": _ratio(refused["within_50_ms"], refused["count"]),
        "refused_with_retry_info": _ratio(refused["with_retry_info"], refused["count"]),
        "other_errors": {
            ending: count
            for ending, count in overload["endings"].items()
            if ending not in {"OK", "RESOURCE_EXHAUSTED OVERLOADED"}
        },
    }


def _ratio(value: float | None, base: float | None) -> float | None:
    return round(value / base, 4) if value is not None and base else None
