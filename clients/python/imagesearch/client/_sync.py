"""The synchronous client."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc

from imagesearch.client import request_builders as build
from imagesearch.client._channel import CHANNEL_OPTIONS, call_metadata, resolve_target
from imagesearch.client._errors import ImageSearchError
from imagesearch.client._resumption import Resumption
from imagesearch.client._retries import OverloadRetries
from imagesearch.gateway.v1.image_pb2 import Image
from imagesearch.gateway.v1.image_search_service_pb2_grpc import ImageSearchServiceStub as Stub
from imagesearch.gateway.v1.library_pb2 import Library
from imagesearch.gateway.v1.search_pb2 import FindDuplicatesResponse, KeepPolicy

P = ParamSpec("P")
Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)
Method = TypeVar("Method", bound=Callable[..., Any])


def _method(
    build_request: Callable[P, Request],
    rpc: Callable[[Stub], grpc.UnaryUnaryMultiCallable[Request, Response]],
) -> Callable[Concatenate[Client, P], Response]:
    """Return a client method that builds a request from keywords and sends it."""

    @functools.wraps(build_request)
    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> Response:
        return self._call(rpc(self._stub), build_request(*args, **kwargs))

    return with_self(method)


def with_self(method: Method) -> Method:
    """Set the signature that `help` shows: `self` and the keywords of the wrapped builder."""
    keywords = inspect.signature(method).parameters.values()
    first = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    signature = inspect.Signature([first, *keywords])
    vars(method)["__signature__"] = signature
    return method


class Client:
    """A client of the Gateway; safe to share between threads.

    Args:
        target: gRPC address, "host:port" or "dns:///name:port". Default: the environment variable
            `IMAGESEARCH_TARGET`, else 127.0.0.1:50051.
        timeout_s: deadline of a call in seconds, retries included.
        token: bearer token.
        credentials: TLS credentials; without them the connection is plain text.

    A call is retried up to three times if the service is unavailable, and up to four times, after
    the delay that the service asks for, if it is overloaded. Mutations carry a `request_id`, so
    that a retried mutation takes effect once.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        timeout_s: float = 60.0,
        token: str | None = None,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self.target = resolve_target(target)
        self._timeout_s = timeout_s
        self._metadata = call_metadata(token)
        self._channel = (
            grpc.secure_channel(self.target, credentials, CHANNEL_OPTIONS)
            if credentials
            else grpc.insecure_channel(self.target, CHANNEL_OPTIONS)
        )
        self._stub = Stub(self._channel)

    def close(self) -> None:
        """Close the connection; calls in flight are cancelled."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    create_library = _method(build.create_library, lambda stub: stub.CreateLibrary)
    get_library = _method(build.get_library, lambda stub: stub.GetLibrary)
    list_libraries = _method(build.list_libraries, lambda stub: stub.ListLibraries)
    update_library = _method(build.update_library, lambda stub: stub.UpdateLibrary)
    delete_library = _method(build.delete_library, lambda stub: stub.DeleteLibrary)
    add_image = _method(build.add_image, lambda stub: stub.AddImage)
    batch_add_images = _method(build.batch_add_images, lambda stub: stub.BatchAddImages)
    get_image = _method(build.get_image, lambda stub: stub.GetImage)
    get_thumbnail = _method(build.get_thumbnail, lambda stub: stub.GetThumbnail)
    list_images = _method(build.list_images, lambda stub: stub.ListImages)
    update_image = _method(build.update_image, lambda stub: stub.UpdateImage)
    delete_image = _method(build.delete_image, lambda stub: stub.DeleteImage)
    delete_images = _method(build.delete_images, lambda stub: stub.DeleteImages)
    search_images = _method(build.search_images, lambda stub: stub.SearchImages)
    batch_search_images = _method(build.batch_search_images, lambda stub: stub.BatchSearchImages)
    detect_subjects = _method(build.detect_subjects, lambda stub: stub.DetectSubjects)
    compare_images = _method(build.compare_images, lambda stub: stub.CompareImages)
    reject_pairs = _method(build.reject_pairs, lambda stub: stub.RejectPairs)
    get_server_info = _method(build.get_server_info, lambda stub: stub.GetServerInfo)

    def libraries(self) -> Iterator[Library]:
        """Iterate over all libraries, by name."""
        page_token = ""
        while True:
            page = self.list_libraries(page_size=100, page_token=page_token)
            yield from page.libraries
            if not (page_token := page.next_page_token):
                return

    def images(self, *, parent: str, filter: str = "") -> Iterator[Image]:  # noqa: A002
        """Iterate over the images of a library, all or those that match a filter.

        >>> [image.image_id for image in client.images(parent="libraries/zoo")]
        ['cat']
        """
        page_token = ""
        while True:
            page = self.list_images(
                parent=parent, filter=filter, page_size=100, page_token=page_token
            )
            yield from page.images
            if not (page_token := page.next_page_token):
                return

    def find_duplicates(
        self,
        *,
        parent: str,
        filter: str = "",  # noqa: A002
        min_score: float | None = None,
        max_false_positive_rate: float | None = None,
        keep: KeepPolicy.ValueType = KeepPolicy.KEEP_POLICY_UNSPECIFIED,
        page_token: str = "",
    ) -> Iterator[FindDuplicatesResponse]:
        """Stream groups of near-duplicates within a library, as they are found.

        A stream that breaks, or takes longer than `timeout_s`, is resumed after the last message.
        Close the iterator to cancel the scan.

        >>> messages = client.find_duplicates(parent="libraries/zoo")
        >>> [message.group for message in messages if message.HasField("group")]
        []
        """
        request = build.find_duplicates(
            parent=parent,
            filter=filter,
            min_score=min_score,
            max_false_positive_rate=max_false_positive_rate,
            keep=keep,
            page_token=page_token,
        )
        resumption = Resumption(request)
        while not resumption.is_done:
            call: Any = self._stub.FindDuplicates(
                request, timeout=self._timeout_s, metadata=self._metadata
            )
            try:
                for message in call:
                    resumption.received(message)
                    yield message
                resumption.end_of_stream()
            except grpc.RpcError as error:
                time.sleep(resumption.delay_s(ImageSearchError.from_rpc_error(error)))
            finally:
                call.cancel()

    def is_serving(self) -> bool:
        """Return whether the Gateway and the services it depends on are serving."""
        health: Any = health_pb2_grpc.HealthStub(self._channel)
        answer: health_pb2.HealthCheckResponse = self._call(
            health.Check, health_pb2.HealthCheckRequest()
        )
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def _call(
        self, rpc: grpc.UnaryUnaryMultiCallable[Request, Response], request: Request
    ) -> Response:
        retries = OverloadRetries(self._timeout_s)
        while True:
            try:
                return rpc(request, timeout=retries.remaining_s(), metadata=self._metadata)
            except grpc.RpcError as error:
                time.sleep(retries.delay_s(ImageSearchError.from_rpc_error(error)))
