"""A radix tree over cache entries: which KV sequences hold which prefix, shared parts stored once. Policy only.

A match may end anywhere, inside an edge too. The model is SGLang's RadixAttention (Zheng et al. 2024,
arXiv 2312.07104), but there the tree owns cells, and here it names the sequences that do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from hearth.models.engine.prompt import Entry


@dataclass(slots=True, eq=False)
class Node:
    """``edge`` leads from the parent here; ``ends`` are the sequences whose entries end exactly here."""

    edge: list[Entry]
    parent: Node | None
    children: dict[Entry, Node] = field(default_factory=dict)
    ends: set[int] = field(default_factory=set)


class RadixTree:
    """Maps sequence ids to their entries. A sequence without entries is not in the tree."""

    def __init__(self) -> None:
        self._root = Node([], None)
        self._end: dict[int, Node] = {}

    def extend(self, seq_id: int, entries: Sequence[Entry]) -> None:
        """Appends ``entries`` to what ``seq_id`` holds."""
        if not entries:
            return
        node = self._end.get(seq_id, self._root)
        if node is not self._root and not node.children and len(node.ends) == 1:
            node.edge.extend(entries)  # the usual case while tokens are generated
            return
        node.ends.discard(seq_id)
        end = self._insert(node, list(entries))
        end.ends.add(seq_id)
        self._end[seq_id] = end
        self._tidy(node)

    def truncate(self, seq_id: int, n_entries: int) -> None:
        """Keeps the first ``n_entries`` of what ``seq_id`` holds."""
        kept = self.entries(seq_id)[:n_entries]
        self.remove(seq_id)
        self.extend(seq_id, kept)

    def remove(self, seq_id: int) -> None:
        """Forgets a sequence; nothing happens if it is not in the tree."""
        node = self._end.pop(seq_id, None)
        if node is not None:
            node.ends.discard(seq_id)
            self._tidy(node)

    def match(self, entries: Sequence[Entry]) -> tuple[int, set[int]]:
        """How many of ``entries`` are held, and by which sequences (all that go through where the match ends)."""
        node, n_matched = self._root, 0
        while n_matched < len(entries):
            child = node.children.get(entries[n_matched])
            if child is None:
                break
            shared = common_prefix(child.edge, entries[n_matched : n_matched + len(child.edge)])
            n_matched += shared
            node = child
            if shared < len(child.edge):
                break
        return n_matched, set() if node is self._root else self._below(node)

    def entries(self, seq_id: int) -> list[Entry]:
        """What a sequence holds; empty if it is not in the tree."""
        edges: list[list[Entry]] = []
        node = self._end.get(seq_id)
        while node is not None:
            edges.append(node.edge)
            node = node.parent
        return [entry for edge in reversed(edges) for entry in edge]

    def check(self) -> None:
        """Raises AssertionError if the tree is not a tidy radix tree (for debugging and tests)."""
        for node in self._nodes():
            if node is self._root:
                continue
            assert node.edge, "an edge without entries"
            assert node.parent is not None, "a node without a parent"
            assert node.parent.children.get(node.edge[0]) is node, "a child under the wrong entry"
            assert node.ends or len(node.children) > 1, "a node that should have been joined"
            assert all(self._end.get(seq_id) is node for seq_id in node.ends), "an end that is not noted"
        assert not self._root.ends, "a sequence without entries"
        assert all(seq_id in node.ends for seq_id, node in self._end.items()), "a noted end that is not one"

    def _insert(self, node: Node, entries: list[Entry]) -> Node:
        """The node where ``entries`` below ``node`` end, made if need be."""
        while entries:
            child = node.children.get(entries[0])
            if child is None:
                child = Node(entries, node)
                node.children[entries[0]] = child
                return child
            shared = common_prefix(child.edge, entries)
            if shared < len(child.edge):
                child = self._split(child, shared)
            node, entries = child, entries[shared:]
        return node

    def _split(self, node: Node, at: int) -> Node:
        """Puts a node ``at`` entries down the edge of ``node``, and returns it."""
        assert node.parent is not None
        upper = Node(node.edge[:at], node.parent, {node.edge[at]: node})
        node.parent.children[node.edge[0]] = upper
        node.edge, node.parent = node.edge[at:], upper
        return upper

    def _tidy(self, node: Node) -> None:
        """Removes ``node`` if nothing ends at or below it, and joins what is left of a fork."""
        while node.parent is not None and not node.ends and not node.children:
            parent = node.parent
            del parent.children[node.edge[0]]
            node = parent
        if node.parent is not None and not node.ends and len(node.children) == 1:
            (child,) = node.children.values()
            child.edge = node.edge + child.edge
            child.parent = node.parent
            node.parent.children[node.edge[0]] = child

    def _below(self, node: Node) -> set[int]:
        found = set(node.ends)
        for child in node.children.values():
            found |= self._below(child)
        return found

    def _nodes(self) -> Iterator[Node]:
        waiting = [self._root]
        while waiting:
            node = waiting.pop()
            waiting += node.children.values()
            yield node


def common_prefix(a: Sequence[Entry], b: Sequence[Entry]) -> int:
    """How many entries are equal from the start."""
    low, high = 0, min(len(a), len(b))
    if a[:high] == b[:high]:
        return high
    while low + 1 < high:  # a[:low] is equal, a[:high] is not; comparing slices is quick
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low
