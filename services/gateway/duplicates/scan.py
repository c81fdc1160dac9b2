"""Repeats within a library: groups of the same picture, streamed as they are found.

    some images → nearest of each → which of these are copies → theirs in turn → parts
                                  → around each image to keep, the copies of it → a group

Images are looked at in the order of their uids, which is that of no property of theirs and never
changes. Whatever hangs together with an image by copies of copies is found when the first of it is
looked at, and is sent then. So one uid tells how far a call has come, and a later call goes on from
there without remembering anything: what an image behind it would have found itself was found. Only
where an index lets one of two find the other and not the other way round may a chain of copies be
shared out in another way than the first call would have done.

In a part the images are taken in the order of the policy. The first is one to keep: those that are
copies of it make its group, and are gone from the part; the next one left is taken. So every member
was compared with the one that is proposed to keep, and a chain A ~ B ~ C with A unlike C never
joins A and C, at the price that C may be left over beside A and B: too few are proposed for
deletion, not too many.

What is held is some images with their neighbours, without vectors; the uids of those that are in
groups, about 100 bytes each; and a number for each pair that was laid over each other in vain,
about 70 bytes.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.types import Box, Vector
from imagesearch_services.gateway.duplicates.copy_check import CopyCheck, Likeness
from imagesearch_services.gateway.duplicates.graph import (
    Graph,
    KeepPolicy,
    Links,
    Node,
    Uid,
    Verdict,
    pair_of,
    rank,
)
from imagesearch_services.gateway.duplicates.tokens import DuplicateTokens, Place
from imagesearch_services.gateway.errors import library_changed
from imagesearch_services.gateway.filters import Filter
from imagesearch_services.gateway.model import THUMBNAIL_SIDE_PX, Library, StoredImage
from imagesearch_services.gateway.ports import Catalog, ImagePage, NearestQuery
from imagesearch_services.gateway.scoring.calibration import (
    Threshold,
    closeness,
    similarity_of_closeness,
)

PAGE_IMAGES = 32
"""Images looked at together, between two messages."""
READ_IMAGES = 100
"""Images read in one call with their vectors, and searched with."""
FIRST_NEIGHBOURS = 16
"""Asked for first; where there may be more, `MAX_NEIGHBOURS` are."""
MAX_NEIGHBOURS = 1001
MAX_LINKS = 250_000
"""Likenesses that are held at once, about 30 MB; beyond it no more copies are searched with."""
GROUP_IMAGES = 1000
"""Images read in one call."""
MIN_CHECKED_PX = 18
"""Shorter side of small pictures that can be laid over each other; Embedding takes 16 and more."""


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
class ScanServices:
    """What a scan asks."""

    catalog: Catalog
    check: CopyCheck
    tokens: DuplicateTokens


@dataclass(frozen=True, slots=True)
class _Member:
    uid: Uid
    closeness: float
    pixels_agree: bool


_Group = Sequence[_Member]
"""The one to keep first."""
_Rejected = Mapping[str, set[str]]
"""The image ids that each one was rejected with."""


@dataclass(slots=True, kw_only=True)
class Scan:
    """One call on its way."""

    services: ScanServices
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
    unlike: set[int] = field(default_factory=set)
    """Hashes of pairs that were compared and are no copies."""
    kept: dict[Uid, Uid | None] = field(default_factory=dict)
    """Of images that were weighed: the one to keep of their group, None for those in none."""

    async def run(self) -> AsyncGenerator[DuplicatesNews, None]:
        self.began_after = self.place.after
        while True:
            page = await self._page()
            images = [image for image in page.images if image.uid > self.place.after]
            due = await self._look_at(images)
            for image in images:
                async for one in self._step(image.uid, due.get(image.uid, ()), page.total_count):
                    yield one
            if not page.next_page_token:
                break
            self.place = replace(self.place, page=page.next_page_token)
            token = self.services.tokens.encode(self.place)
            yield DuplicatesNews((), self.place.checked_count, page.total_count, token)
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
                raise library_changed(self.library) from error
            raise

    async def _look_at(self, images: Sequence[StoredImage]) -> Mapping[Uid, list[_Group]]:
        """Give the groups that hang on these images, by the first image of each part."""
        fresh = {image.uid for image in images if image.uid not in self.kept}
        graph = Graph(
            nodes={image.uid: self._node(image) for image in images if image.uid in fresh}
        )
        await self._spread(graph, [image for image in images if image.uid in fresh])
        parts = graph.links.parts()
        late = [uid for uid in fresh if graph.nodes[uid].met]
        rejected = await self._rejected(
            [graph.nodes[uid].image_id for uid in {*late, *(uid for part in parts for uid in part)}]
        )
        due: dict[Uid, list[_Group]] = {}
        first = images[0].uid if images else b""
        for part in parts:
            self.kept.update((uid, None) for uid in part)
        if self.began_after:
            parts = [new for part in parts for new in self._new_parts(graph, part)]
        for part in parts:
            groups = await self._groups(graph, part, rejected)
            for group in groups:
                self.kept.update((member.uid, group[0].uid) for member in group)
            due.setdefault(min(fresh.intersection(part), default=first), []).extend(groups)
        for group in await self._late(graph, late, rejected):
            self.kept.update((member.uid, group[0].uid) for member in group)
            due.setdefault(min(member.uid for member in group[1:]), []).append(group)
        return due

    async def _spread(self, graph: Graph, images: Sequence[StoredImage]) -> None:
        """Search with images, tell their copies, and go on with those that are new."""
        while images:
            await self._find_near(graph, images)
            copies = await self._find_copies(graph, [image.uid for image in images])
            if sum(len(node.near) for node in graph.nodes.values()) > MAX_LINKS:
                return
            images = await self._images(copies[:READ_IMAGES], include_vectors=True)

    async def _find_near(self, graph: Graph, images: Sequence[StoredImage]) -> None:
        unknown: dict[Uid, None] = {}
        for image, near in zip(images, await self._nearest(images), strict=True):
            node = graph.nodes[image.uid]
            near.pop(image.uid, None)
            node.met = {uid: value for uid, value in near.items() if uid in self.kept}
            node.near = {uid: value for uid, value in near.items() if uid not in self.kept}
            node.is_searched = True
            unknown.update((uid, None) for uid in node.near if uid not in graph.nodes)
        for image in await self._images(list(unknown), include_vectors=True):
            graph.nodes[image.uid] = self._node(image)

    async def _find_copies(self, graph: Graph, uids: Sequence[Uid]) -> list[Uid]:
        """Compare images with what is near; give the copies that are still to be searched with.

        What hangs together already is not compared: of many copies of one picture each is compared
        once, not with all others.
        """
        while pairs := list(self._pairs(graph, uids)):
            await self._judge(graph, pairs)
            for pair in pairs:
                if graph.verdicts[pair].is_copy:
                    graph.links.join(*pair)
        roots = {graph.links.root(uid) for uid in uids}
        return [
            uid
            for uid, node in graph.nodes.items()
            if not node.is_searched and graph.links.root(uid) in roots
        ]

    def _pairs(self, graph: Graph, uids: Sequence[Uid]) -> Iterator[tuple[Uid, Uid]]:
        """Give pairs that are not compared yet, as many as could join what is apart."""
        links = graph.links.copy()
        for uid in uids:
            node = graph.nodes[uid]
            for other, similarity in node.near.items():
                pair = pair_of(uid, other)
                if other not in graph.nodes or pair in graph.verdicts:
                    continue
                if hash(pair) in self.unlike:
                    continue
                if self._is_likely(node, graph.nodes[other], similarity) and links.join(*pair):
                    yield pair

    def _new_parts(self, graph: Graph, part: Sequence[Uid]) -> list[list[Uid]]:
        """Leave out of what hangs together what an earlier call has found.

        That is what an image that it was done with finds by itself, and what this finds in turn: of
        two that lie at different distances from pictures in general one may find the other, and not
        the other way round.
        """
        finds: dict[Uid, list[Uid]] = {uid: [] for uid in part}
        copies = []
        for a, b in itertools.combinations(part, 2):
            verdict = graph.verdicts.get((a, b))
            if verdict is not None and verdict.is_copy:
                copies.append((a, b))
                for one, other in ((a, b), (b, a)):
                    own = graph.nodes[one].background_similarity
                    if self._passes(self.loose, closeness(verdict.likeness.similarity, own)):
                        finds[one].append(other)
        waiting = [uid for uid in part if uid <= self.began_after and finds[uid]]
        found = set(waiting)
        while waiting:
            new = set(finds[waiting.pop()]) - found
            found |= new
            waiting += new
        links = Links()
        for a, b in copies:
            if a not in found and b not in found:
                links.join(a, b)
        return links.parts()

    async def _judge(self, graph: Graph, pairs: Sequence[tuple[Uid, Uid]]) -> None:
        """Tell which pairs are copies."""
        to_check: list[tuple[Uid, Uid]] = []
        likely: dict[tuple[Uid, Uid], Likeness] = {}
        for a, b in pairs:
            one, other = graph.nodes[a], graph.nodes[b]
            likeness = likely[a, b] = one.likeness_to(other, graph.similarity(a, b) or 0.0)
            if one.is_same_file(other):
                graph.verdicts[a, b] = Verdict(True, True, likeness)
            else:
                passes = self._passes(self.strict, likeness.closeness)
                graph.verdicts[a, b] = Verdict(passes, False, likeness)
                if one.has_thumbnail and other.has_thumbnail:
                    to_check.append((a, b))
        answers = await self.services.check.check(
            self.library.library_id,
            self.library.uid,
            [(graph.nodes[a].image_id, graph.nodes[b].image_id, likely[a, b]) for a, b in to_check],
        )
        for pair, is_copy in zip(to_check, answers, strict=True):
            if is_copy is not None:
                graph.verdicts[pair] = Verdict(is_copy, is_copy, likely[pair])
        self.unlike.update(hash(pair) for pair in pairs if not graph.verdicts[pair].is_copy)

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

    async def _groups(self, graph: Graph, part: Sequence[Uid], rejected: _Rejected) -> list[_Group]:
        """Share a part that hangs together out among images to keep."""
        left = dict.fromkeys(sorted(part, key=lambda uid: graph.nodes[uid].rank))
        groups: list[_Group] = []
        while left:
            keep = next(iter(left))
            del left[keep]
            group = await self._group(graph, keep, list(left), rejected)
            for member in group[1:]:
                del left[member.uid]
            if len(group) > 1:
                groups.append(group)
        return groups

    async def _group(
        self, graph: Graph, keep: Uid, others: Iterable[Uid], rejected: _Rejected
    ) -> _Group:
        """Give the one to keep and its copies among others, the closest first."""
        nodes = graph.nodes
        pairs = {}
        for uid in others:
            similarity = graph.similarity(keep, uid)
            if similarity is not None and self._is_likely(nodes[keep], nodes[uid], similarity):
                pairs[uid] = pair_of(keep, uid)
        await self._judge(graph, [pair for pair in pairs.values() if pair not in graph.verdicts])
        verdicts = {uid: graph.verdicts[pair] for uid, pair in pairs.items()}
        group = [_Member(keep, 1.0, pixels_agree=False)]
        ids = {nodes[keep].image_id}
        for uid in sorted(verdicts, key=lambda uid: (-verdicts[uid].likeness.closeness, uid)):
            image_id, verdict = nodes[uid].image_id, verdicts[uid]
            if verdict.is_copy and ids.isdisjoint(rejected.get(image_id, ())):
                group.append(_Member(uid, verdict.likeness.closeness, verdict.pixels_agree))
                ids.add(image_id)
        return group

    async def _late(self, graph: Graph, late: Iterable[Uid], rejected: _Rejected) -> list[_Group]:
        """Find groups that were sent already for those that only now are found to be of them.

        These are new, or were not among the thousand nearest of an image with more copies.
        """
        joining: dict[Uid, list[Uid]] = {}
        for uid in late:
            if self.kept.get(uid) is None:
                for other in graph.nodes[uid].met:
                    if self.kept[other] == other:
                        joining.setdefault(other, []).append(uid)
        groups: list[_Group] = []
        joined: set[Uid] = set()
        for keep in await self._images(list(joining), include_vectors=True):
            graph.nodes[keep.uid] = self._node(keep)
            for uid in joining[keep.uid]:
                graph.nodes[uid].near[keep.uid] = graph.nodes[uid].met[keep.uid]
            candidates = [
                uid
                for uid in joining[keep.uid]
                if uid not in joined
                and not await self._is_rejected(rejected.get(graph.nodes[uid].image_id), keep.uid)
            ]
            group = await self._group(graph, keep.uid, candidates, rejected)
            if len(group) > 1:
                joined.update(member.uid for member in group)
                groups.append(group)
        return groups

    async def _is_rejected(self, others: set[str] | None, keep: Uid) -> bool:
        """Tell whether one of the images is in the group of the one to keep."""
        if not others:
            return False
        images = await self.services.catalog.get_images(
            self.library.library_id, image_ids=sorted(others)[:GROUP_IMAGES]
        )
        return any(self.kept.get(image.uid) == keep for image in images)

    async def _step(
        self, uid: Uid, groups: Sequence[_Group], total_count: int
    ) -> AsyncIterator[DuplicatesNews]:
        """Be done with an image: send its groups, and only with the last one say so."""
        before = self.place
        self.place = replace(
            before, after=uid, checked_count=before.checked_count + 1, turn=b"", sent_count=0
        )
        sent_count = before.sent_count if before.turn == uid else 0
        encode = self.services.tokens.encode
        for number, members in enumerate(groups[sent_count:], sent_count):
            group = await self._shown(members)
            here = replace(before, turn=uid, sent_count=number + 1)
            is_last = number + 1 == len(groups)
            if group:
                yield DuplicatesNews(
                    group,
                    self.place.checked_count,
                    total_count,
                    encode(self.place if is_last else here),
                    encode(replace(before, turn=uid, sent_count=number)),
                )

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
        step = READ_IMAGES if include_vectors else GROUP_IMAGES
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
    def _passes(threshold: Threshold, value: float) -> bool:
        return threshold.min_similarity is None or value >= threshold.min_similarity


def _shows_enough(image: StoredImage) -> bool:
    """Tell whether the small picture of an image shows what was embedded, and is not too narrow."""
    width, height = image.info.width, image.info.height
    short, long = sorted((width, height))
    is_whole = image.region is None or image.region == Box(0, 0, width, height)
    return is_whole and short * min(1.0, THUMBNAIL_SIDE_PX / max(long, 1)) >= MIN_CHECKED_PX
