"""Does a question find its page, and what does the relevance floor let through? Prints a table and one JSON line.

    python benchmarks/retrieval.py [--data ../shared/data/tldr-pages.jsonl.xz] [--n 1500]

Indexes command-line help pages in a temporary data folder and asks questions that have an answer there and questions
that have none. For floors on the cosine distance it prints how many answerable questions keep their page among the
passages, and how many of the others wrongly get a source. The floor in use is ``hearth.memory.MAX_DISTANCE``.
"""

from __future__ import annotations

import argparse
import json
import lzma
import tempfile
from pathlib import Path

from hearth import memory
from hearth.runtime import Runtime
from hearth.settings import Settings
from hearth.store.documents import NewPassage

ANSWERABLE = {
    "how do I compress a folder with tar": "tar",
    "copy files to another computer over ssh": "scp",
    "show the disk space used by each directory": "du",
    "find out which process listens on a port": "lsof",
    "how can I resize an image on the command line": "magick",
    "search for a word in all files": "grep",
    "list running containers": "docker",
    "undo the last commit": "git-reset",
    "download a web page recursively": "wget",
    "change the owner of a file": "chown",
    "convert a video to another format": "ffmpeg",
    "print the first lines of a file": "head",
    "schedule a job to run every night": "crontab",
    "kill a process by its name": "pkill",
    "show the free memory": "free",
    "mount a usb stick": "mount",
    "compare two files line by line": "diff",
    "create a python virtual environment": "python",
    "make a symbolic link": "ln",
    "sort lines of text by number": "sort",
    "see the git history as a graph": "git-log",
    "ping a host": "ping",
    "encrypt a file with a password": "gpg",
    "replace text in a file": "sed",
    "show the manual of a command": "man",
}
UNANSWERABLE = (
    "What is this?",
    "What colour is it?",
    "How many apples are there?",
    "Hello",
    "Thank you very much",
    "What are you?",
    "Who won the world cup in 1974?",
    "Write a poem about the sea",
    "When is my mother's birthday?",
    "Who keeps the key to the greenhouse?",
    "What did the doctor say about my knee?",
    "Which side is the dog on?",
    "How much rent do we pay?",
    "My name is Tobias",
    "What is the capital of France?",
    "Is there a cat in the picture?",
    "What time does the train to Berlin leave?",
    "Good morning, how are you?",
    "Can you translate this into German?",
    "How old is the universe?",
)
FLOORS = (0.45, 0.50, 0.55, 0.60, 0.65, 0.70, 0.75, 0.80)


def main() -> None:
    default = Path(__file__).resolve().parents[2] / "shared" / "data" / "tldr-pages.jsonl.xz"
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data", type=Path, default=default, help="tldr pages, one JSON object a line, xz")
    arguments.add_argument("--n", type=int, default=1500, help="pages to index beside those asked for")
    chosen = arguments.parse_args()
    pages = _pages(chosen.data, chosen.n)
    with tempfile.TemporaryDirectory() as folder:
        runtime = Runtime(Settings(data_dir=Path(folder)))
        kept = memory.Memory(runtime)
        _index(runtime, pages)
        _report(kept, len(pages))
        runtime.close()


def _pages(path: Path, n: int) -> dict[str, str]:
    wanted = set(ANSWERABLE.values())
    pages: dict[str, str] = {}
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            page = json.loads(line)
            if page["name"] not in pages and (page["name"] in wanted or len(pages) < n):
                pages[page["name"]] = page["text"]
    return pages


def _index(runtime: Runtime, pages: dict[str, str]) -> None:
    documents, embedder = runtime.store.documents, runtime.text_embedder.get()
    names = list(pages)
    vectors = embedder.embed([f"{name}\n{pages[name]}" for name in names])
    for name, vector in zip(names, vectors, strict=True):
        text = pages[name]
        document = documents.begin(name, f"{name}.md", "text", "text/markdown", f"{hash(text):064x}"[-64:], 1)
        documents.finish(document.id, [NewPassage(text, None, 0, len(text), "")], vector[None], embedder.model_id)


def _report(kept: memory.Memory, n_pages: int) -> None:
    found = {question: kept._search_text(question, 6) for question in ANSWERABLE}
    stray = {question: kept._search_text(question, 6) for question in UNANSWERABLE}
    in_top = {
        question: [hit for hit in hits if hit.document.title == ANSWERABLE[question]]
        for question, hits in found.items()
    }
    recall = sum(bool(hits) for hits in in_top.values()) / len(in_top)
    print(f"{n_pages} pages; the right page is among 6 passages for {recall:.0%} of {len(ANSWERABLE)} questions\n")
    print("floor   right page kept   unanswerable with a source")
    for floor in FLOORS:
        right = _share([any(_near(hit.distance, floor) for hit in hits) for hits in in_top.values()])
        wrong = _share([any(_near(hit.distance, floor) for hit in hits) for hits in stray.values()])
        print(f"{floor:5.2f}   {right:15.0%}   {wrong:26.0%}")
    right = _share([any(memory._relevant(hit) for hit in hits) for hits in in_top.values()])
    wrong = _share([any(memory._relevant(hit) for hit in hits) for hits in stray.values()])
    print(f"in use  {right:15.0%}   {wrong:26.0%}")
    print(json.dumps({"pages": n_pages, "recall_at_6": recall, "kept": right, "stray": wrong}))


def _near(distance: float | None, floor: float) -> bool:
    return distance is not None and distance <= floor


def _share(outcomes: list[bool]) -> float:
    return sum(outcomes) / len(outcomes)


if __name__ == "__main__":
    main()
