"""Explores the connected components of images: their copies, the copies of these, and so on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from imagesearch_services.gateway.duplicates.graph import ImageGraph, ordered_pair
from imagesearch_services.gateway.duplicates.judging import PairJudge
from imagesearch_services.gateway.duplicates.library_reader import (
    MAX_IMAGES_WITH_VECTORS,
    LibraryReader,
)
from imagesearch_services.gateway.duplicates.model import Uid, UidPair
from imagesearch_services.gateway.duplicates.state import ProcessedImages
from imagesearch_services.gateway.model import StoredImage


@dataclass(frozen=True, slots=True, kw_only=True)
class Traversal:
    """Builds the graph of the images of a page and of their copies."""

    reader: LibraryReader
    judge: PairJudge
    processed: ProcessedImages
    max_edges: int
    """Number of edges above which the traversal stops."""

    async def explore(self, images: Sequence[StoredImage]) -> ImageGraph:
        """Return the graph of the images and of all images in their connected components."""
        graph = ImageGraph(nodes={image.uid: self.reader.node(image) for image in images})
        while images:
            await self._add_neighbors(graph, images)
            found = await self._connect_copies(graph, [image.uid for image in images])
            if graph.edge_count > self.max_edges:
                break
            images = await self.reader.images(found[:MAX_IMAGES_WITH_VECTORS], include_vectors=True)
        return graph

    async def _add_neighbors(self, graph: ImageGraph, images: Sequence[StoredImage]) -> None:
        """Search with the images and add the neighbors to the graph."""
        unknown: dict[Uid, None] = {}
        for image, neighbors in zip(images, await self.reader.neighbors(images), strict=True):
            node = graph.nodes[image.uid]
            for uid, similarity in neighbors.items():
                if uid == image.uid:
                    continue
                if uid in self.processed:
                    node.processed_neighbors[uid] = similarity
                else:
                    node.neighbors[uid] = similarity
                    if uid not in graph.nodes:
                        unknown[uid] = None
            node.is_searched = True
        graph.nodes.update(await self.reader.nodes(list(unknown)))

    async def _connect_copies(self, graph: ImageGraph, uids: Sequence[Uid]) -> list[Uid]:
        """Compare images with their neighbors and union the components of copies.

        Images that are already in the same component are not compared. So each of many copies of a
        picture is compared once, not with every other copy.

        Returns:
            Images of the components with which no search was made yet.
        """
        while pairs := list(self._candidate_pairs(graph, uids)):
            await self.judge.judge(graph, pairs)
            for pair in pairs:
                if graph.verdicts[pair].is_copy:
                    graph.copies.union(*pair)
        roots = {graph.copies.root(uid) for uid in uids}
        return [
            uid
            for uid, node in graph.nodes.items()
            if not node.is_searched and graph.copies.root(uid) in roots
        ]

    def _candidate_pairs(self, graph: ImageGraph, uids: Sequence[Uid]) -> Iterator[UidPair]:
        """Yield uncompared pairs to compare: a spanning forest of the likely copies."""
        components = graph.copies.copy()
        for uid in uids:
            node = graph.nodes[uid]
            for other, similarity in node.neighbors.items():
                pair = ordered_pair(uid, other)
                if other not in graph.nodes or pair in graph.verdicts:
                    continue
                if pair in self.judge.non_copies:
                    continue
                may_be_copies = self.judge.may_be_copies(node, graph.nodes[other], similarity)
                if may_be_copies and components.union(*pair):
                    yield pair
