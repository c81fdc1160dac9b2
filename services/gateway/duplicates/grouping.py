"""Splits connected components of copies into groups around the images to keep.

The images of a component are sorted by the keep policy. The first is an image to keep: it forms a
group with its copies, which leave the component, and the next remaining image follows. So every
member was compared with its image to keep, and a chain A ~ B ~ C with A unlike C never puts A and C
into one group. As a consequence, C may stay without a group although it is a copy of B: the scan
proposes too few deletions rather than too many.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from imagesearch_services.gateway.duplicates.graph import ImageGraph, ordered_pair
from imagesearch_services.gateway.duplicates.judging import PairJudge
from imagesearch_services.gateway.duplicates.library_reader import MAX_IMAGES, LibraryReader
from imagesearch_services.gateway.duplicates.model import Group, Member, Uid
from imagesearch_services.gateway.duplicates.resuming import remaining_components
from imagesearch_services.gateway.duplicates.state import ProcessedImages

Rejections = Mapping[str, set[str]]
"""For each image id, the ids that the caller rejected as its duplicates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grouping:
    """Splits the components of explored graphs into groups."""

    reader: LibraryReader
    judge: PairJudge
    processed: ProcessedImages
    began_after: Uid
    """Uid of the last image that earlier calls completed; empty: this is the first call."""

    async def groups(
        self, graph: ImageGraph, explored: Sequence[Uid], default: Uid
    ) -> Mapping[Uid, list[Group]]:
        """Return the groups of a graph, by the image with which they are sent.

        Args:
            graph: the explored graph; its components become processed.
            explored: images at which the exploration began, ascending.
            default: image with which a group is sent if its component has no explored image.
        """
        components = graph.copies.components()
        late = [uid for uid in explored if graph.nodes[uid].processed_neighbors]
        involved = {*late, *(uid for component in components for uid in component)}
        rejections = await self.reader.rejections([graph.nodes[uid].image_id for uid in involved])
        for component in components:
            self.processed.add_component(component)
        if self.began_after:
            components = [
                remaining
                for component in components
                for remaining in remaining_components(
                    graph, component, self.began_after, self.judge.thresholds.loose
                )
            ]
        groups: dict[Uid, list[Group]] = {}
        for component in components:
            first = min(set(explored).intersection(component), default=default)
            split = await self._split(graph, component, rejections)
            groups.setdefault(first, []).extend(split)
        for group in await self._late_groups(graph, late, rejections):
            first = min(member.uid for member in group[1:])
            groups.setdefault(first, []).append(group)
        return groups

    async def _split(
        self, graph: ImageGraph, component: Sequence[Uid], rejections: Rejections
    ) -> list[Group]:
        """Split a component into groups."""
        remaining = dict.fromkeys(sorted(component, key=lambda uid: graph.nodes[uid].rank))
        groups: list[Group] = []
        while remaining:
            keep = next(iter(remaining))
            del remaining[keep]
            group = await self._group(graph, keep, list(remaining), rejections)
            for member in group[1:]:
                del remaining[member.uid]
            if len(group) > 1:
                self.processed.add_group(group)
                groups.append(group)
        return groups

    async def _group(
        self, graph: ImageGraph, keep: Uid, others: Iterable[Uid], rejections: Rejections
    ) -> Group:
        """Return the image to keep with its copies among the other images."""
        nodes = graph.nodes
        pairs = {}
        for uid in others:
            similarity = graph.similarity(keep, uid)
            if similarity is not None and self.judge.may_be_copies(
                nodes[keep], nodes[uid], similarity
            ):
                pairs[uid] = ordered_pair(keep, uid)
        await self.judge.judge(
            graph, [pair for pair in pairs.values() if pair not in graph.verdicts]
        )
        verdicts = {uid: graph.verdicts[pair] for uid, pair in pairs.items()}
        group = [Member(keep, 1.0, pixels_agree=False)]
        image_ids = {nodes[keep].image_id}
        for uid in sorted(verdicts, key=lambda uid: (-verdicts[uid].evidence.closeness, uid)):
            image_id, verdict = nodes[uid].image_id, verdicts[uid]
            if verdict.is_copy and image_ids.isdisjoint(rejections.get(image_id, ())):
                group.append(Member(uid, verdict.evidence.closeness, verdict.pixels_agree))
                image_ids.add(image_id)
        return group

    async def _late_groups(
        self, graph: ImageGraph, late: Iterable[Uid], rejections: Rejections
    ) -> list[Group]:
        """Return additions to groups that were already sent: the image to keep, then late members.

        A late member was added during the scan, or was not among the thousand nearest of an image
        that has more than a thousand copies.
        """
        candidates: dict[Uid, list[Uid]] = {}
        for uid in late:
            if self.processed.keeper_of(uid) is None:
                for other in graph.nodes[uid].processed_neighbors:
                    if self.processed.keeper_of(other) == other:
                        candidates.setdefault(other, []).append(uid)
        groups: list[Group] = []
        joined: set[Uid] = set()
        for keep, node in (await self.reader.nodes(list(candidates))).items():
            graph.nodes[keep] = node
            allowed = []
            for uid in candidates[keep]:
                late_node = graph.nodes[uid]
                late_node.neighbors[keep] = late_node.processed_neighbors[keep]
                rejected_ids = rejections.get(late_node.image_id)
                if uid not in joined and not await self._any_in_group(rejected_ids, keep):
                    allowed.append(uid)
            group = await self._group(graph, keep, allowed, rejections)
            if len(group) > 1:
                joined.update(member.uid for member in group)
                groups.append(group)
        for group in groups:
            self.processed.add_group(group)
        return groups

    async def _any_in_group(self, image_ids: set[str] | None, keep: Uid) -> bool:
        """Return whether any of the images is in the group of the image to keep."""
        if not image_ids:
            return False
        images = await self.reader.images_by_id(sorted(image_ids)[:MAX_IMAGES])
        return any(self.processed.keeper_of(image.uid) == keep for image in images)
