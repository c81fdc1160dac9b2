"""Repeats within a library: groups of the same picture, streamed as they are found.

    a page of images → nearest of each, of those in turn → parts that hang together
                          → around each image to keep, the copies of it → a group

Images are looked at in the order of their uids, which is that of no property of theirs and never
changes. A group is sent when the scan comes to the first of its members, so that one uid tells how
far a call has come, and a later call goes on from there without remembering anything. Only
where likenesses hold one way (two images may lie at a different distance from pictures in general)
may the later call share a chain of them out in another way than the first would have done.

In a part that hangs together the images are taken in the order of the policy. The first is one to
keep: those of its likenesses that are copies of it make its group, and are gone from the part; the
next one left is taken. So every member was compared with the one that is proposed to keep, and a
chain A ~ B ~ C with A unlike C never joins A and C, at the price that C may be left over beside A
and B: too few are proposed for deletion, not too many.

What is held is a page of images with their neighbours, without vectors, and the uids of those that
are in groups or were weighed for one: about 100 bytes for each of these.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.gateway.calibration import (
    Calibrations,
    Threshold,
    similarity_of_closeness,
)
from imagesearch_services.gateway.concurrency import in_order
from imagesearch_services.gateway.copy_check import CopyCheck
from imagesearch_services.gateway.duplicate_graph import (
    Graph,
    KeepPolicy,
    Node,
    Uid,
    rank,
)
from imagesearch_services.gateway.duplicate_tokens import DuplicateTokens, Place
from imagesearch_services.gateway.filters import Filter
from imagesearch_services.gateway.libraries import LibraryCache
from imagesearch_services.gateway.model import (
    Box,
    Library,
    LibraryType,
    ModelVersion,
    StoredImage,
    Vector,
)
from imagesearch_services.gateway.names import library_name
from imagesearch_services.gateway.page_tokens import invalid_token
from imagesearch_services.gateway.ports import Catalog, ImagePage, NearestQuery
from imagesearch_services.gateway.thumbnails import SIDE_PX

COPY_ROLE = "copy"

PAGE_IMAGES = 100
"""Images looked at together: as many vectors as the Catalog searches with in one call."""
FIRST_NEIGHBOURS = 16
"""Asked for first; where there may be more, `MAX_NEIGHBOURS` are."""
MAX_NEIGHBOURS = 1001
MAX_NODES = 5_000
"""Images of a page with all that hangs together with them; beyond it no more are searched for."""
MAX_LINKS = 250_000
"""Likenesses that are held at once; 30 MB."""
GROUP_IMAGES = 1000
"""Images read in one call."""
MIN_CHECKED_PX = 18
"""Shorter side of small pictures that can be laid over each other; Embedding takes 16 and more."""
LAST_UID = b"\xff" * 16
CHECKED_AT_ONCE = 4
"""Parts of which pictures are being laid over each other at the same time."""

CHECKED_RATE_GAIN = 5.0
"""How many times the false-positive rate is tried where pictures can be laid over each other: that
lets fewer than one in twenty of those through that embeddings took for copies by chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicatesRequest:
    """What the caller wants to know."""

    library_id: str
    filter: Filter | None
    min_score: float | None
    max_false_positive_rate: float | None
    keep: KeepPolicy
    page_token: str
    said: Mapping[str, str]
    """Fingerprints of all of it."""


@dataclass(frozen=True, slots=True)
class DuplicateImage:
    """A member of a group."""

    image: StoredImage
    score: float
    """Against the one to keep."""
    pixels_agree: bool
    """The two were laid over each other."""


@dataclass(frozen=True, slots=True)
class DuplicatesNews:
    """One message: a group, or only how far the scan has come."""

    group: Sequence[DuplicateImage]
    """The one to keep first; empty: no group."""
    checked_count: int
    total_count: int
    next_page_token: str
    """Empty: this is the last message."""
    page_token: str = ""
    """Where to go on to be given this group again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicates:
    """Looks for repeats, and remembers what is none."""

    catalog: Catalog
    check: CopyCheck
    libraries: LibraryCache
    calibrations: Calibrations
    tokens: DuplicateTokens
    default_max_false_positive_rate: float
    min_library_size: int

    async def reject(
        self, library_id: str, pairs: Sequence[tuple[str, str]], request_id: str
    ) -> int:
        """Remember pairs of image ids that are no duplicates; give how many were new."""
        return await self.catalog.reject_pairs(library_id, pairs, request_id)

    async def find(self, request: DuplicatesRequest) -> AsyncGenerator[DuplicatesNews, None]:
        """Give groups and progress; nothing is done ahead of what is asked for.

        Raises:
            ServiceError: LIBRARY_NOT_FOUND, LIBRARY_TYPE_MISMATCH, FILTER_INVALID,
                PAGE_TOKEN_INVALID; LIBRARY_CHANGED where it was made anew meanwhile.
        """
        library = await self.libraries.fetch(request.library_id)
        model = _copy_model(library)
        place = self._place(request, library)
        scan = _Scan(
            services=self,
            request=request,
            library=library,
            space=model.space,
            strict=self._threshold(request, model, place.comparisons, 1.0),
            loose=self._threshold(request, model, place.comparisons, CHECKED_RATE_GAIN),
            place=place,
        )
        async with aclosing(scan.run()) as news:
            async for one in news:
                yield one

    def _place(self, request: DuplicatesRequest, library: Library) -> Place:
        if not request.page_token:
            return Place(
                library_uid=library.uid,
                request=request.said,
                comparisons=max(library.image_count, self.min_library_size),
            )
        place = self.tokens.decode(request.page_token)
        if place.library_uid != library.uid:
            raise invalid_token("it belongs to another library")
        for name, value in request.said.items():
            if place.request.get(name) != value:
                raise invalid_token(f"it belongs to a call with another {name}")
        return place

    def _threshold(
        self, request: DuplicatesRequest, model: ModelVersion, comparisons: int, gain: float
    ) -> Threshold:
        rate = request.max_false_positive_rate
        if rate is None and request.min_score is None:
            rate = self.default_max_false_positive_rate
        return Threshold.strictest(
            self.calibrations.of(model),
            comparisons=comparisons,
            rate_share=1.0,
            min_score=request.min_score,
            max_false_positive_rate=None if rate is None else min(1.0, rate * gain),
        )


@dataclass(frozen=True, slots=True)
class _Member:
    uid: Uid
    closeness: float
    pixels_agree: bool


_Group = Sequence[_Member]
"""The one to keep first."""


@dataclass(slots=True, kw_only=True)
class _Scan:
    """One call on its way."""

    services: Duplicates
    request: DuplicatesRequest
    library: Library
    space: str
    strict: Threshold
    """Where only embeddings speak."""
    loose: Threshold
    """Where pictures are laid over each other, too."""
    place: Place
    began_after: Uid = b""
    """What earlier calls were done with."""
    kept: dict[Uid, Uid | None] = field(default_factory=dict)
    """Of images that were weighed: the one to keep of their group, None for those in none."""
    waiting: list[tuple[Uid, Uid, _Group]] = field(default_factory=list)
    """A heap of groups, by the image at whose turn they are sent, and one of their own."""

    async def run(self) -> AsyncGenerator[DuplicatesNews, None]:
        self.began_after = self.place.after
        while True:
            page = await self._page()
            uids = [image.uid for image in page.images if image.uid > self.place.after]
            if uids:
                # All of the page, as the call did that came to its middle.
                await self._look_at(page.images)
            for uid in uids:
                async for one in self._step(uid, page.total_count):
                    yield one
            if not page.next_page_token:
                break
            self.place = replace(self.place, page=page.next_page_token)
            token = self.services.tokens.encode(self.place)
            yield DuplicatesNews((), self.place.checked_count, page.total_count, token)
        # What waits for an image that is gone.
        async for one in self._due(LAST_UID, self.place, page.total_count):
            yield one
        yield DuplicatesNews((), self.place.checked_count, self.place.checked_count, "")

    async def _page(self) -> ImagePage:
        try:
            return await self.services.catalog.list_images(
                self.library.library_id,
                self.request.filter,
                PAGE_IMAGES,
                self.place.page,
                include_vectors=True,
            )
        except ServiceError as error:
            if error.reason is Reason.PAGE_TOKEN_INVALID and self.place.page:
                # The Catalog's token is of this library and filter: so the library is another.
                raise _library_changed(self.library) from error
            raise

    async def _look_at(self, images: Sequence[StoredImage]) -> None:
        """Find the groups that hang on a page's images; they wait for their turn."""
        fresh = {image.uid: image for image in images if image.uid not in self.kept}
        graph, met = await self._graph(list(fresh.values()))
        parts = [part for part in graph.components() if not fresh.keys().isdisjoint(part)]
        rejected = await self._rejected(
            [graph.nodes[uid].image_id for uid in {*met, *(uid for part in parts for uid in part)}]
        )

        async def groups_of(part: Sequence[Uid]) -> list[_Group]:
            return await self._groups(graph, part, rejected)

        async with aclosing(in_order(groups_of, parts, ahead=CHECKED_AT_ONCE)) as found:
            remaining = iter(parts)
            async for groups in found:
                part = next(remaining)
                self._take(graph, part, min(fresh.keys() & set(part)), groups)
        await self._join_late(graph, met, rejected)

    async def _graph(
        self, images: Sequence[StoredImage]
    ) -> tuple[Graph, Mapping[Uid, Mapping[Uid, float]]]:
        """Search with the images, then with what that finds, until nothing new is found.

        Returns:
            All of it; and of each of the images, the similarities of those found that were weighed
            before.
        """
        graph = Graph()
        met: dict[Uid, dict[Uid, float]] = {}
        waiting = deque(images)
        link_count = 0
        for image in images:
            graph.nodes[image.uid] = self._node(image)
        while waiting:
            some = [waiting.popleft() for _ in range(min(len(waiting), PAGE_IMAGES))]
            unknown: dict[Uid, None] = {}
            for image, near in zip(some, await self._nearest(some), strict=True):
                near.pop(image.uid, None)
                known = {uid: value for uid, value in near.items() if uid in self.kept}
                if known:
                    met[image.uid] = known
                node = graph.nodes[image.uid]
                node.near = {uid: value for uid, value in near.items() if uid not in known}
                link_count += len(node.near)
                unknown.update((uid, None) for uid in node.near if uid not in graph.nodes)
            for image in await self._images(list(unknown), include_vectors=True):
                graph.nodes[image.uid] = self._node(image)
                if len(graph.nodes) <= MAX_NODES and link_count <= MAX_LINKS:
                    waiting.append(image)
        graph.connect(self._is_likely)
        return graph, met

    async def _nearest(self, images: Sequence[StoredImage]) -> list[dict[Uid, float]]:
        """Search with stored vectors; give the similarities of what may be copies."""
        vectors = [self._vector(image) for image in images]
        lists = await self._search(vectors, FIRST_NEIGHBOURS)
        full = [row for row, near in enumerate(lists) if len(near) >= FIRST_NEIGHBOURS]
        if full:
            deep = await self._search([vectors[row] for row in full], MAX_NEIGHBOURS)
            for row, near in zip(full, deep, strict=True):
                lists[row] = near
        return lists

    async def _search(self, vectors: Sequence[Vector], limit: int) -> list[dict[Uid, float]]:
        floor = self.loose.min_similarity
        floors = [
            -1.0 if floor is None else similarity_of_closeness(floor, one.background_similarity)
            for one in vectors
        ]
        lists = await self.services.catalog.nearest(
            NearestQuery(
                library_id=self.library.library_id,
                library_uid=self.library.uid,
                vectors=vectors,
                filter=self.request.filter,
                limit=limit,
                min_similarity=min(floors),
                distinct_entities=False,
                include_images=False,
            )
        )
        return [
            {hit.uid: hit.similarity for hit in hits if hit.similarity >= least}
            for hits, least in zip(lists, floors, strict=True)
        ]

    async def _rejected(self, image_ids: Sequence[str]) -> Mapping[str, set[str]]:
        """Give the ids that each image was rejected with."""
        rejected: dict[str, set[str]] = {}
        for start in range(0, len(image_ids), GROUP_IMAGES):
            for a, b in await self.services.catalog.rejected_pairs(
                self.library.library_id, image_ids[start : start + GROUP_IMAGES]
            ):
                rejected.setdefault(a, set()).add(b)
                rejected.setdefault(b, set()).add(a)
        return rejected

    async def _groups(
        self, graph: Graph, part: Sequence[Uid], rejected: Mapping[str, set[str]]
    ) -> list[_Group]:
        """Share a part that hangs together out among images to keep."""
        nodes = graph.nodes
        left = dict.fromkeys(sorted(part, key=lambda uid: nodes[uid].rank))
        groups: list[_Group] = []
        while left:
            keep = next(iter(left))
            del left[keep]
            likenesses = {
                uid: similarity
                for uid, similarity in graph.likenesses(keep).items()
                if uid in left and nodes[uid].image_id not in rejected.get(nodes[keep].image_id, ())
            }
            group = [_Member(keep, 1.0, pixels_agree=False)]
            ids = {nodes[keep].image_id}
            for member in await self._copies(nodes[keep], likenesses, nodes):
                image_id = nodes[member.uid].image_id
                if ids.isdisjoint(rejected.get(image_id, ())):
                    group.append(member)
                    ids.add(image_id)
                    del left[member.uid]
            if len(group) > 1:
                groups.append(group)
        return groups

    async def _copies(
        self, keep: Node, likenesses: Mapping[Uid, float], nodes: Mapping[Uid, Node]
    ) -> list[_Member]:
        """Give those that are copies of the one to keep, the closest first."""
        likely = {uid: keep.likeness_to(nodes[uid], value) for uid, value in likenesses.items()}
        order = sorted(likely, key=lambda uid: (-likely[uid].closeness, uid))
        to_check = [
            uid
            for uid in order
            if keep.has_thumbnail and nodes[uid].has_thumbnail and not keep.is_same_file(nodes[uid])
        ]
        checked = dict(
            zip(
                to_check,
                await self.services.check.check(
                    self.library.library_id,
                    self.library.uid,
                    keep.image_id,
                    [(nodes[uid].image_id, likely[uid]) for uid in to_check],
                ),
                strict=True,
            )
        )
        copies = []
        for uid in order:
            agrees = True if keep.is_same_file(nodes[uid]) else checked.get(uid)
            if agrees or (agrees is None and self._passes(self.strict, likely[uid].closeness)):
                copies.append(_Member(uid, likely[uid].closeness, pixels_agree=agrees is True))
        return copies

    def _take(
        self, graph: Graph, part: Sequence[Uid], first: Uid, groups: Iterable[_Group]
    ) -> None:
        """Let groups wait for their turn, unless an earlier call has sent them.

        Args:
            graph: of the page.
            part: what was weighed.
            first: the first image of the page in it.
            groups: what came of it.
        """
        self.kept.update((uid, None) for uid in part)
        for group in groups:
            self.kept.update((member.uid, group[0].uid) for member in group)
            turn = _turn(graph, [member.uid for member in group], first)
            if turn > self.began_after:
                heapq.heappush(self.waiting, (turn, group[0].uid, group))

    async def _join_late(
        self,
        graph: Graph,
        met: Mapping[Uid, Mapping[Uid, float]],
        rejected: Mapping[str, set[str]],
    ) -> None:
        """Find groups that are complete already for those that only now are found to be of them.

        These are new, or were not among the thousand nearest of an image with more copies.
        """
        joining: dict[Uid, dict[Uid, float]] = {}
        for uid, near in met.items():
            if self.kept.get(uid) is None:
                for other, similarity in near.items():
                    if self.kept[other] == other:
                        joining.setdefault(other, {})[uid] = similarity
        for keep in await self._images(list(joining), include_vectors=True):
            candidates = {
                uid: similarity
                for uid, similarity in joining[keep.uid].items()
                if self.kept.get(uid) is None
                and not await self._is_rejected(rejected.get(graph.nodes[uid].image_id), keep.uid)
            }
            members = await self._copies(self._node(keep), candidates, graph.nodes)
            if members:
                group = [_Member(keep.uid, 1.0, pixels_agree=False), *members]
                self.kept.update((member.uid, keep.uid) for member in members)
                turn = min(member.uid for member in members)
                heapq.heappush(self.waiting, (turn, turn, group))

    async def _is_rejected(self, others: set[str] | None, keep: Uid) -> bool:
        """Tell whether one of the images is in the group of the one to keep."""
        if not others:
            return False
        images = await self.services.catalog.get_images(
            self.library.library_id, image_ids=sorted(others)[:GROUP_IMAGES]
        )
        return any(self.kept.get(image.uid) == keep for image in images)

    async def _step(self, uid: Uid, total_count: int) -> AsyncIterator[DuplicatesNews]:
        """Be done with an image, and send what waits for its turn."""
        before = self.place
        self.place = replace(before, after=uid, checked_count=before.checked_count + 1)
        async for one in self._due(uid, before, total_count):
            yield one

    async def _due(
        self, turn: Uid, before: Place, total_count: int
    ) -> AsyncIterator[DuplicatesNews]:
        """Send the groups whose turn has come; only after the last one is the image done with."""
        while self.waiting and self.waiting[0][0] <= turn:
            _, _, members = heapq.heappop(self.waiting)
            group = await self._shown(members)
            is_last = not self.waiting or self.waiting[0][0] > turn
            if group:
                token = self.services.tokens.encode(self.place if is_last else before)
                again = self.services.tokens.encode(before)
                checked_count = self.place.checked_count
                yield DuplicatesNews(group, checked_count, total_count, token, again)

    async def _shown(self, members: _Group) -> list[DuplicateImage]:
        """Read a group as it is now; nothing where the one to keep or all others are gone."""
        images = {image.uid: image for image in await self._images([one.uid for one in members])}
        calibration = self.strict.calibration
        group = [
            DuplicateImage(
                images[one.uid],
                1.0 if number == 0 else calibration.score(one.closeness),
                one.pixels_agree,
            )
            for number, one in enumerate(members)
            if one.uid in images
        ]
        return group if members[0].uid in images and len(group) > 1 else []

    async def _images(
        self, uids: Sequence[Uid], *, include_vectors: bool = False
    ) -> list[StoredImage]:
        """Read images, those that are there."""
        step = PAGE_IMAGES if include_vectors else GROUP_IMAGES
        images: list[StoredImage] = []
        for start in range(0, len(uids), step):
            images += await self.services.catalog.get_images(
                self.library.library_id,
                uids=uids[start : start + step],
                include_vectors=include_vectors,
            )
        return images

    def _node(self, image: StoredImage) -> Node:
        return Node(
            image_id=image.image_id,
            rank=rank(image, self.request.keep),
            sha256=image.info.sha256,
            has_thumbnail=image.has_thumbnail and _shows_enough(image),
            background_similarity=self._vector(image).background_similarity,
        )

    def _vector(self, image: StoredImage) -> Vector:
        return next(one for one in image.vectors if one.space == self.space)

    def _is_likely(self, one: Node, other: Node, similarity: float) -> bool:
        may_check = one.has_thumbnail and other.has_thumbnail
        threshold = self.loose if may_check else self.strict
        return self._passes(threshold, one.likeness_to(other, similarity).closeness)

    @staticmethod
    def _passes(threshold: Threshold, closeness: float) -> bool:
        return threshold.min_similarity is None or closeness >= threshold.min_similarity


def _turn(graph: Graph, uids: Sequence[Uid], found_at: Uid) -> Uid:
    """Give the image at whose turn a group is sent: the first of its own that leads to all of it.

    An index may let one of two find the other, and not the other way round, and so may what lies
    nearer to pictures in general. That image finds the group in whichever call looks at it; where
    there is none, the turn is now.
    """
    return next((uid for uid in sorted(uids) if graph.found_from(uid).issuperset(uids)), found_at)


def _shows_enough(image: StoredImage) -> bool:
    """Tell whether the small picture of an image shows what was embedded, and is not too narrow."""
    width, height = image.info.width, image.info.height
    short, long = sorted((width, height))
    is_whole = image.region is None or image.region == Box(0, 0, width, height)
    return is_whole and short * min(1.0, SIDE_PX / max(long, 1)) >= MIN_CHECKED_PX


def _copy_model(library: Library) -> ModelVersion:
    model = library.model(COPY_ROLE)
    if library.type is LibraryType.WHOLE_IMAGE and model is not None:
        return model
    name = library_name(library.library_id)
    raise ServiceError(
        Reason.LIBRARY_TYPE_MISMATCH,
        f"{name}: duplicates are looked for in whole-image libraries only",
        metadata={"library": name, "type": library.type.name},
    )


def _library_changed(library: Library) -> ServiceError:
    name = library_name(library.library_id)
    return ServiceError(
        Reason.LIBRARY_CHANGED, f"{name} was made anew meanwhile", metadata={"library": name}
    )
