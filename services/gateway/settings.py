"""Settings of the Gateway: environment variables IMAGESEARCH_GATEWAY_*."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from imagesearch_services.common.env import Env, SettingsError
from imagesearch_services.common.server import ServerSettings
from imagesearch_services.gateway.call_limit import CallLimitSettings

PREFIX = "IMAGESEARCH_GATEWAY_"
MIB = 1024 * 1024

MAX_REGIONS = 64
"""Maximum regions per picture that Embedding proposes."""
MAX_CHUNK_PICTURES = 100
"""Maximum pictures per call of Embedding."""


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """Settings of searches and of FindDuplicates."""

    max_proposed_regions: int = 24
    """Maximum regions of a query that are searched if the whole picture has no sure match; 0
    disables the search of regions."""
    region_rate_share: float = 0.5
    """Share of the false-positive rate that is assigned to all regions together, in (0, 1)."""
    sure_false_positive_rate: float = 1e-3
    """Maximum false-positive rate of a sure match."""
    min_library_size: int = 1000
    """Minimum library size that scores are computed for. The calibration tables describe the
    nearest of thousands of unrelated pictures, and are less accurate for smaller libraries."""
    sure_library_size: int = 100_000
    """Minimum library size that the rate of a sure match is computed for. With the size of a small
    library, a picture that only contains a copy would be a sure match, and its regions would not
    be searched."""
    default_max_false_positive_rate: float = 0.01
    """Maximum false-positive rate of SAME and of element searches if the caller limits neither
    score nor rate."""
    element_window_candidates: int = 100
    """Number of candidates that are nearest to a window of the query, in a library of a thousand
    elements. Each factor of ten in library size adds the same number, at most 450 in total, since
    more unrelated elements rank before the right one."""
    element_word_candidates: int = 60
    """Number of candidates that share most visual words with the query. It grows in the same
    way."""
    element_shape_candidates: int = 30
    """Number of additional candidates: single-color elements with the most similar shapes.
    Independent of the library size; at most 100."""
    batch_concurrency: int = 8
    """Maximum searches of one batch that run at the same time."""


@dataclass(frozen=True, kw_only=True)
class AddSettings:
    """Settings of adding pictures."""

    chunk_pictures: int = 16
    """Maximum pictures of a batch per call of Embedding and Catalog."""
    chunks_in_flight: int = 2
    """Maximum chunks of one batch that are embedded at the same time."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the Gateway."""

    server: ServerSettings
    embedding_target: str
    """gRPC name of the Embedding service."""
    catalog_target: str
    """gRPC name of the Catalog service."""
    embedding_timeout_s: float
    """Maximum duration of one call; less if the caller's deadline is earlier."""
    catalog_timeout_s: float
    """Maximum duration of one call; less if the caller's deadline is earlier."""
    max_in_flight_bytes: int
    """Maximum bytes of requests with pictures in progress; further calls fail with OVERLOADED."""
    max_duplicates_calls: int
    """Maximum calls of FindDuplicates in progress; further calls fail with OVERLOADED. Each call
    takes capacity of Embedding from searches."""
    call_limit: CallLimitSettings
    """Bounds of the adaptive limit of the calls with pictures in progress, batches excluded."""
    batch_limit: CallLimitSettings
    """Bounds of the adaptive limit of the batches in progress."""
    tokens: frozenset[str]
    """Valid bearer tokens; empty: calls need no token."""
    page_token_key: bytes
    """Key that signs page tokens, the same for all Gateways behind one address. Empty: the key of
    the installation, which the Catalog makes once."""
    calibration_dir: Path | None
    """Folder with calibration tables of additional models."""
    search: SearchSettings
    add: AddSettings

    @classmethod
    def from_env(cls, env: Env | None = None) -> Self:
        """Read the settings from environment variables.

        Raises:
            SettingsError: a variable is missing, invalid, out of range or unknown.
        """
        env = env or Env(PREFIX)
        calibration_dir = env.text("CALIBRATION_DIR", "")
        search, add = SearchSettings(), AddSettings()
        settings = cls(
            server=ServerSettings.from_env(
                env,
                port=50051,
                metrics_port=9464,
                max_message_bytes=32 * MIB,
                caller_share=0.5,
                min_ping_interval_s=10.0,
                max_buffered_bytes=192 * MIB,
            ),
            embedding_target=env.text("EMBEDDING_TARGET", "127.0.0.1:50052"),
            catalog_target=env.text("CATALOG_TARGET", "127.0.0.1:50053"),
            embedding_timeout_s=env.number("EMBEDDING_TIMEOUT_S", 60.0),
            catalog_timeout_s=env.number("CATALOG_TIMEOUT_S", 30.0),
            max_in_flight_bytes=env.integer("MAX_IN_FLIGHT_BYTES", 256 * MIB),
            max_duplicates_calls=env.integer("MAX_DUPLICATES_CALLS", 2),
            call_limit=_call_limit(env, "CALLS", CallLimitSettings()),
            batch_limit=_call_limit(
                env, "BATCHES", CallLimitSettings(initial=8, minimum=2, maximum=64)
            ),
            tokens=frozenset(env.words("TOKENS")),
            page_token_key=env.text("PAGE_TOKEN_KEY", "").encode(),
            calibration_dir=Path(calibration_dir) if calibration_dir else None,
            search=SearchSettings(
                max_proposed_regions=env.integer(
                    "MAX_PROPOSED_REGIONS", search.max_proposed_regions
                ),
                region_rate_share=env.number("REGION_RATE_SHARE", search.region_rate_share),
                sure_false_positive_rate=env.number(
                    "SURE_FALSE_POSITIVE_RATE", search.sure_false_positive_rate
                ),
                min_library_size=env.integer("MIN_LIBRARY_SIZE", search.min_library_size),
                sure_library_size=env.integer("SURE_LIBRARY_SIZE", search.sure_library_size),
                default_max_false_positive_rate=env.number(
                    "DEFAULT_MAX_FALSE_POSITIVE_RATE", search.default_max_false_positive_rate
                ),
                batch_concurrency=env.integer("BATCH_CONCURRENCY", search.batch_concurrency),
            ),
            add=AddSettings(
                chunk_pictures=env.integer("CHUNK_PICTURES", add.chunk_pictures),
                chunks_in_flight=env.integer("CHUNKS_IN_FLIGHT", add.chunks_in_flight),
            ),
        )
        env.refuse_unknown()
        settings.check()
        return settings

    def check(self) -> None:
        """Raise SettingsError if a number is out of range."""
        search, add = self.search, self.add
        default_rate = search.default_max_false_positive_rate
        requirements = {
            "MAX_PROPOSED_REGIONS": (
                0 <= search.max_proposed_regions <= MAX_REGIONS,
                f"between 0 and {MAX_REGIONS}",
            ),
            "REGION_RATE_SHARE": (0 < search.region_rate_share < 1, "above 0 and below 1"),
            "SURE_FALSE_POSITIVE_RATE": (
                0 <= search.sure_false_positive_rate <= 1,
                "between 0 and 1",
            ),
            "MIN_LIBRARY_SIZE": (search.min_library_size > 0, "above 0"),
            "SURE_LIBRARY_SIZE": (search.sure_library_size > 0, "above 0"),
            "DEFAULT_MAX_FALSE_POSITIVE_RATE": (0 < default_rate <= 1, "above 0 and at most 1"),
            "BATCH_CONCURRENCY": (search.batch_concurrency > 0, "above 0"),
            "CHUNK_PICTURES": (
                0 < add.chunk_pictures <= MAX_CHUNK_PICTURES,
                f"between 1 and {MAX_CHUNK_PICTURES}",
            ),
            "CHUNKS_IN_FLIGHT": (add.chunks_in_flight > 0, "above 0"),
            "MAX_IN_FLIGHT_BYTES": (self.max_in_flight_bytes > 0, "above 0"),
            "MAX_DUPLICATES_CALLS": (self.max_duplicates_calls > 0, "above 0"),
            "MIN_CALLS": (self.call_limit.minimum > 0, "above 0"),
            "MAX_CALLS": (self.call_limit.maximum >= self.call_limit.minimum, "at least MIN_CALLS"),
            "TARGET_WAIT_S": (self.call_limit.target_wait_s > 0, "above 0"),
            "MIN_BATCHES": (self.batch_limit.minimum > 0, "above 0"),
            "MAX_BATCHES": (
                self.batch_limit.maximum >= self.batch_limit.minimum,
                "at least MIN_BATCHES",
            ),
        }
        for name, (is_valid, requirement) in requirements.items():
            if not is_valid:
                raise SettingsError(f"{PREFIX}{name} must be {requirement}")


def _call_limit(env: Env, name: str, default: CallLimitSettings) -> CallLimitSettings:
    minimum = env.integer(f"MIN_{name}", default.minimum)
    maximum = env.integer(f"MAX_{name}", default.maximum)
    return CallLimitSettings(
        initial=min(max(default.initial, minimum), maximum),
        minimum=minimum,
        maximum=maximum,
        target_wait_s=env.number("TARGET_WAIT_S", default.target_wait_s),
    )
