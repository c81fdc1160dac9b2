"""Decides which pairs of images are copies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from imagesearch_services.gateway.duplicates.copy_check import CopyCheck
from imagesearch_services.gateway.duplicates.graph import ImageGraph, Node, Verdict
from imagesearch_services.gateway.duplicates.model import EmbeddingEvidence, Thresholds, UidPair
from imagesearch_services.gateway.duplicates.state import RecentPairs
from imagesearch_services.gateway.model import Library


@dataclass(frozen=True, slots=True, kw_only=True)
class PairJudge:
    """Judges pairs of images by their embeddings, and by their thumbnails if both have them."""

    library: Library
    check: CopyCheck
    thresholds: Thresholds
    non_copies: RecentPairs
    """Compared pairs that are not copies."""

    def may_be_copies(self, a: Node, b: Node, similarity: float) -> bool:
        """Return whether two images are similar enough to be compared."""
        can_align = a.has_thumbnail and b.has_thumbnail
        threshold = self.thresholds.loose if can_align else self.thresholds.strict
        return threshold.accepts(a.compare(b, similarity).closeness)

    async def judge(self, graph: ImageGraph, pairs: Sequence[UidPair]) -> None:
        """Compare pairs and write the verdicts into the graph."""
        to_align: list[tuple[UidPair, EmbeddingEvidence]] = []
        for pair in pairs:
            a, b = (graph.nodes[uid] for uid in pair)
            evidence = a.compare(b, graph.similarity(*pair) or 0.0)
            if a.is_same_file(b):
                graph.verdicts[pair] = Verdict(True, True, evidence)
                continue
            is_close = self.thresholds.strict.accepts(evidence.closeness)
            graph.verdicts[pair] = Verdict(is_close, False, evidence)
            if a.has_thumbnail and b.has_thumbnail:
                to_align.append((pair, evidence))
        await self._align(graph, to_align)
        for pair in pairs:
            if not graph.verdicts[pair].is_copy:
                self.non_copies.add(pair)

    async def _align(
        self, graph: ImageGraph, pairs: Sequence[tuple[UidPair, EmbeddingEvidence]]
    ) -> None:
        """Align the thumbnails of pairs and replace the verdicts on those that were compared."""
        results = await self.check.check(
            self.library.library_id,
            self.library.uid,
            [
                (graph.nodes[a].image_id, graph.nodes[b].image_id, evidence)
                for (a, b), evidence in pairs
            ],
        )
        for (pair, evidence), is_copy in zip(pairs, results, strict=True):
            if is_copy is not None:
                graph.verdicts[pair] = Verdict(is_copy, is_copy, evidence)
