"""Makes random calls and reports what is wrong with their answers."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message

from imagesearch.catalog.v1 import catalog_service_pb2 as catalog_pb2
from imagesearch.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from imagesearch.embedding.v1 import embedding_service_pb2 as embedding_pb2
from imagesearch.embedding.v1.embedding_service_pb2_grpc import EmbeddingServiceStub
from imagesearch.gateway.v1 import image_pb2, library_pb2, search_pb2
from imagesearch.gateway.v1.image_search_service_pb2_grpc import ImageSearchServiceStub
from imagesearch.type.v1 import library_type_pb2, picture_pb2, tag_pb2
from tests.fuzz.requests.answers import OWN_DEADLINE, outcome_of, wrong_items
from tests.fuzz.requests.known import Known
from tests.fuzz.requests.messages import Generator
from tests.fuzz.requests.methods import Method
from tests.fuzz.requests.values import photos

MAX_DELAY_S = 1.0
"""Maximum time by which a call may outlast its deadline."""
DEADLINES_S = (0.001, 0.02, 0.2, 1.0, *(20.0,) * 12)
LAG_INTERVAL_S, LAGS = 0.05, 1_000
"""Interval and number of the measurements of this process's own delay."""
USUAL_S = 0.005
"""Added to the mean duration of an RPC when its share of the calls is computed."""
LIBRARY_TYPES = (
    library_type_pb2.LIBRARY_TYPE_WHOLE_IMAGE,
    library_type_pb2.LIBRARY_TYPE_ELEMENT,
    library_type_pb2.LIBRARY_TYPE_PRODUCT,
)
RARE = {"DeleteLibrary": 0.03, "DeleteImages": 0.1, "DeleteEntries": 0.1}
"""Factors of the share of RPCs that empty the libraries."""

HEADERS = (
    (), (), (), (("x-request-id", "fuzz"),), (("x-request-id", "x" * 7_000),), (("x-request-id",
    ' ~!"%{}'),),
    (("x-request-id", "a"), ("x-request-id", "b")), (("noise-bin", b"\0\xff"),),
    (("authorization", "Bearer x"),),
    (("x-request-id", ""),), (("traceparent", "00-zz"),), tuple((f"h{number}",
    "v") for number in range(60)),
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """A wrong answer."""

    signature: str
    method: str
    request: bytes
    seconds: float


@dataclass
class Statistics:
    """What the calls so far led to."""

    outcomes: Counter[str] = field(default_factory=Counter)
    mean_s: dict[str, float] = field(default_factory=dict)
    slowest_s: float = 0.0

    def note(self, method: Method, outcome: str, seconds: float) -> None:
        self.outcomes[f"{method.name} {outcome}"] += 1
        self.mean_s[method.path] = 0.95 * self.mean_s.get(method.path, seconds) + 0.05 * seconds
        self.slowest_s = max(self.slowest_s, seconds)


class Lag:
    """How late the event loop of this process was lately, on a machine that may be busy."""

    def __init__(self) -> None:
        self._late_s: deque[tuple[float, float]] = deque(maxlen=LAGS)

    async def watch(self) -> None:
        while True:
            began_s = time.perf_counter()
            await asyncio.sleep(LAG_INTERVAL_S)
            now_s = time.perf_counter()
            self._late_s.append((now_s, now_s - began_s - LAG_INTERVAL_S))

    def since(self, began_s: float) -> float:
        """Return the sum of the delays since a time, in seconds."""
        return sum(late_s for now_s, late_s in self._late_s if now_s >= began_s)


class Caller:
    """Calls the services at random."""

    def __init__(self, targets: Mapping[str, str], methods: list[Method]) -> None:
        self._channels = {
            service: grpc.aio.insecure_channel(
                target,
                options=[
                    ("grpc.max_receive_message_length", -1),
                    ("grpc.max_send_message_length", -1),
                    ("grpc.max_reconnect_backoff_ms", 500),
                ],
            )
            for service, target in targets.items()
        }
        self._methods = methods
        self.known = Known()
        self.statistics = Statistics()
        self._generator = Generator(self.known)
        self._lag = Lag()
        self._watching = asyncio.create_task(self._lag.watch())

    async def close(self) -> None:
        self._watching.cancel()
        for channel in self._channels.values():
            await channel.close()

    async def populate(self) -> None:
        """Create a library of each type and add pictures, unless they are there."""
        gateway = ImageSearchServiceStub(self._channels["gateway"])  # type: ignore[no-untyped-call]
        for number, library_type in enumerate(LIBRARY_TYPES):
            name = f"libraries/fuzz-{number}"
            library = library_pb2.Library(type=library_type)
            create = library_pb2.CreateLibraryRequest(library_id=f"fuzz-{number}", library=library)
            with contextlib.suppress(grpc.RpcError):
                await gateway.CreateLibrary(create, timeout=20)
            images = [
                image_pb2.AddImageRequest(
                    image_id=f"i{index}",
                    image=picture_pb2.ImageContent(content=content),
                    tags={"tag_0": tag_pb2.TagValue(string_value="alpha")},
                    allow_overwrite=True,
                )
                for index, content in enumerate(photos()[:6])
            ]
            add = image_pb2.BatchAddImagesRequest(parent=name, requests=images)
            with contextlib.suppress(grpc.RpcError):
                await gateway.BatchAddImages(add, timeout=20)
            self.known.add("library_name", name)
        await self._add_examples()

    async def _add_examples(self) -> None:
        """Keep valid requests of RPCs that chance rarely gets right."""
        embedding = EmbeddingServiceStub(self._channels["embedding"])  # type: ignore[no-untyped-call]
        image = picture_pb2.ImageContent(content=photos()[0])
        item = embedding_pb2.EmbedImageItem(image=image)
        extract = embedding_pb2.ExtractFeaturesRequest(items=[item], for_query=True)
        features = b""
        with contextlib.suppress(grpc.RpcError):
            features = (await embedding.ExtractFeatures(extract, timeout=20)).results[0].features
        candidate = embedding_pb2.StoredFeatures(id="a", features=features)
        names = [f"libraries/fuzz-0/images/i{number}" for number in range(2)]
        pair = search_pb2.ImagePair(name_a=names[0], name_b=names[1])
        library = catalog_pb2.Library(
            library_id="own-0", type=LIBRARY_TYPES[0], spaces=[{"name": "sscd@1", "dimensions": 8}]
        )
        examples = {
            "/imagesearch.embedding.v1.EmbeddingService/EmbedQuery": (
                embedding_pb2.EmbedQueryRequest(image=image, spaces=["sscd@1"])
            ),
            "/imagesearch.embedding.v1.EmbeddingService/VerifyFeatures": (
                embedding_pb2.VerifyFeaturesRequest(query_features=features, candidates=[candidate])
            ),
            "/imagesearch.gateway.v1.ImageSearchService/RejectPairs": (
                search_pb2.RejectPairsRequest(parent="libraries/fuzz-0", pairs=[pair])
            ),
            "/imagesearch.gateway.v1.ImageSearchService/SearchImages": (
                search_pb2.SearchImagesRequest(parent="libraries/fuzz-0", image=image)
            ),
            "/imagesearch.catalog.v1.CatalogService/CreateLibrary": (
                catalog_pb2.CreateLibraryRequest(library=library)
            ),
        }
        for path, example in examples.items():
            self.known.add_request(path, example.SerializeToString())

    async def remove_libraries(self) -> None:
        """Delete all libraries that random requests may have created."""
        catalog = CatalogServiceStub(self._channels["catalog"])  # type: ignore[no-untyped-call]
        listed = await catalog.ListLibraries(catalog_pb2.ListLibrariesRequest(page_size=1000))
        for library in listed.libraries:
            if library.library_id.startswith(("fuzz-", "own-")):
                request = catalog_pb2.DeleteLibraryRequest(library_id=library.library_id)
                await catalog.DeleteLibrary(request)

    async def try_one(self, random_: random.Random) -> list[Finding]:
        """Make one random call."""
        method = self._choose(random_)
        request = self._generator.request(method, random_)
        deadline_s = random_.choice(DEADLINES_S)
        headers = random_.choice(HEADERS)
        began_s = time.perf_counter()
        wrong: list[str] = []
        try:
            async with asyncio.timeout(deadline_s + 10 * MAX_DELAY_S):
                answers = await self._call(method, request, deadline_s, headers)
            outcome = "OK"
            for answer in answers:
                wrong += set(wrong_items(answer))
                self.known.learn(method, request, answer)
        except grpc.RpcError as error:
            is_past = time.perf_counter() - began_s > 0.9 * deadline_s
            outcome, problem = outcome_of(error, is_past_deadline=is_past)
            wrong += [problem] if problem else []
        except DecodeError:
            outcome, wrong = "no message", ["the response is no message"]
        except TimeoutError:
            outcome, wrong = "no answer", ["no answer"]
        seconds = time.perf_counter() - began_s
        allowed_s = deadline_s + MAX_DELAY_S + 3 * self._lag.since(began_s)
        if seconds > allowed_s and outcome != OWN_DEADLINE:
            wrong.append("late")
        self.statistics.note(method, outcome, seconds)
        return [
            Finding(f"{method.name}: {problem}", method.path, request, seconds) for problem in wrong
        ]

    def _choose(self, random_: random.Random) -> Method:
        """Choose an RPC; slow ones more rarely, so that all get about the same time."""
        means_s = self.statistics.mean_s
        weights = [
            RARE.get(method.path.rpartition("/")[2], 1.0)
            / (USUAL_S + means_s.get(method.path, 0.0))
            for method in self._methods
        ]
        return random_.choices(self._methods, weights)[0]

    async def _call(
        self,
        method: Method,
        request: bytes,
        deadline_s: float,
        headers: tuple[tuple[str, str | bytes], ...],
    ) -> list[Message]:
        channel = self._channels[method.service]
        options: dict[str, Any] = {"timeout": deadline_s, "metadata": headers}
        read: Any = method.response.FromString
        call: Any
        if method.is_request_stream:
            call = channel.stream_stream(method.path, response_deserializer=read)
            return await _converse(call(**options), request)
        if method.is_response_stream:
            call = channel.unary_stream(method.path, response_deserializer=read)
            return [answer async for answer in call(request, **options)]
        return [
            await channel.unary_unary(method.path, response_deserializer=read)(request, **options)
        ]


async def _converse(call: Any, request: bytes) -> list[Message]:
    """Send a request twice: the second one finds the state that the first one left."""
    answers: list[Message] = []
    for _ in range(2):
        with contextlib.suppress(asyncio.InvalidStateError):  # ended: `read` raises the error
            await call.write(request)
        answer = await call.read()
        if answer is grpc.aio.EOF:
            return answers
        answers.append(answer)
    await call.done_writing()
    await call.read()
    return answers
