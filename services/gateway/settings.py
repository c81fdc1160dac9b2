"""What the Gateway is configured by: IMAGESEARCH_GATEWAY_*."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from imagesearch_services.common.env import Env, SettingsError
from imagesearch_services.common.server import ServerSettings

PREFIX = "IMAGESEARCH_GATEWAY_"
MIB = 1024 * 1024

MAX_REGIONS = 64
"""What the Embedding service proposes at most."""
MAX_CHUNK_PICTURES = 100
"""What the Embedding service takes in one call."""


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """How a search goes about its work."""

    max_proposed_regions: int = 24
    """Regions of the query searched where the whole gives no sure answer; 0 turns that off."""
    region_rate_share: float = 0.5
    """Share of the false-positive rate that those regions may spend together, in (0, 1)."""
    sure_false_positive_rate: float = 1e-3
    """A best match that chance gives more seldom than this is a sure answer."""
    min_library_size: int = 1000
    """Smaller libraries count as this large: the tables know how near the nearest of thousands
    comes by chance, and less of how near any picture comes."""
    sure_library_size: int = 100_000
    """It must be that seldom in a library of this size, too: in a small one even a picture that
    holds the copy as a part would pass for the copy, and nobody would look for the part."""
    default_max_false_positive_rate: float = 0.01
    """For SAME, where the caller bounds neither score nor rate."""
    element_window_candidates: int = 100
    """Elements that are nearest to a window of a query, which are looked at closely, in a library
    of a thousand. Where ten times as many are stored, as many again, since more others come before
    the right one; never over 450."""
    element_word_candidates: int = 60
    """Elements that share most words with a query, in the same way."""
    element_shape_candidates: int = 30
    """Elements in one colour whose shape is most like one in a query, beside those, however many
    are stored; at most 100."""
    batch_concurrency: int = 8
    """Searches of one batch that run at the same time."""


@dataclass(frozen=True, kw_only=True)
class AddSettings:
    """How pictures are added."""

    chunk_pictures: int = 16
    """Pictures of a batch that go to Embedding and Catalog in one call."""
    chunks_in_flight: int = 2
    """Chunks of one batch that are being embedded at the same time."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything, read once."""

    server: ServerSettings
    embedding_target: str
    """gRPC name of the Embedding service."""
    catalog_target: str
    """gRPC name of the Catalog service."""
    embedding_timeout_s: float
    """For one call, where the caller leaves us more."""
    catalog_timeout_s: float
    """For one call, where the caller leaves us more."""
    max_in_flight_bytes: int
    """Bytes of pictures being worked on; the rest is told to retry."""
    max_duplicates_calls: int
    """Calls of FindDuplicates being worked on; the rest is told to retry. Each keeps a part of the
    Embedding service busy, beside which searches have to find room."""
    tokens: frozenset[str]
    """Bearer tokens that let a caller in; none: everybody."""
    page_token_key: bytes
    """Signs page tokens; the same for all Gateways behind one address. Empty: a checksum only."""
    calibration_dir: Path | None
    """Tables of your own models, beside those that are built in."""
    search: SearchSettings
    add: AddSettings

    @classmethod
    def from_env(cls, env: Env | None = None) -> Self:
        """Read the variables.

        Raises:
            SettingsError: naming the variable at fault.
        """
        env = env or Env(PREFIX)
        calibration_dir = env.text("CALIBRATION_DIR", "")
        search, add = SearchSettings(), AddSettings()
        settings = cls(
            server=ServerSettings.from_env(
                env, port=50051, metrics_port=9464, max_message_bytes=32 * MIB
            ),
            embedding_target=env.text("EMBEDDING_TARGET", "127.0.0.1:50052"),
            catalog_target=env.text("CATALOG_TARGET", "127.0.0.1:50053"),
            embedding_timeout_s=env.number("EMBEDDING_TIMEOUT_S", 60.0),
            catalog_timeout_s=env.number("CATALOG_TIMEOUT_S", 30.0),
            max_in_flight_bytes=env.integer("MAX_IN_FLIGHT_BYTES", 256 * MIB),
            max_duplicates_calls=env.integer("MAX_DUPLICATES_CALLS", 2),
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
        """Raise SettingsError where a number makes no sense."""
        search, add = self.search, self.add
        sound = {
            "MAX_PROPOSED_REGIONS": 0 <= search.max_proposed_regions <= MAX_REGIONS,
            "REGION_RATE_SHARE": 0 < search.region_rate_share < 1,
            "SURE_FALSE_POSITIVE_RATE": 0 <= search.sure_false_positive_rate <= 1,
            "MIN_LIBRARY_SIZE": search.min_library_size > 0,
            "SURE_LIBRARY_SIZE": search.sure_library_size > 0,
            "DEFAULT_MAX_FALSE_POSITIVE_RATE": 0 < search.default_max_false_positive_rate <= 1,
            "BATCH_CONCURRENCY": search.batch_concurrency > 0,
            "CHUNK_PICTURES": 0 < add.chunk_pictures <= MAX_CHUNK_PICTURES,
            "CHUNKS_IN_FLIGHT": add.chunks_in_flight > 0,
            "MAX_IN_FLIGHT_BYTES": self.max_in_flight_bytes > 0,
            "MAX_DUPLICATES_CALLS": self.max_duplicates_calls > 0,
        }
        for name, is_sound in sound.items():
            if not is_sound:
                raise SettingsError(f"{PREFIX}{name} is out of its range")
