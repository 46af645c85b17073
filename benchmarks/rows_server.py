"""Rows against llama-server, both over HTTP, with the same prompts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from figures import Figure, say
from http_client import completion, stream
from ours import Run, middle, rounded, temporary_folder
from peers import Server, cells, llama_server, our_server

SPARE = 256
AT_REST_S = 0.5  # between a server's start and the question


def server_restore(run: Run) -> Iterator[Figure]:
    """A chat asked again after both servers were restarted: llama-server's slot is saved and restored by hand.

    By the question, or before it: ours at the start, as in the application, and theirs by hand; ``AT_REST_S`` after it.
    """
    n = run.sizes.prefix
    ours, theirs, cold_ours, cold_theirs = [], [], [], []
    ours_ahead, theirs_ahead = [], []
    for i in range(run.repeats):
        body = completion(run.prompt(600 + i, n), 1)
        with temporary_folder() as folder:
            with our_server(run, folder, n_ctx=n + SPARE) as server:
                cold_ours.append(stream(server.port, body).ttft_s)
                server.post("/flush", {})
            with our_server(run, folder, n_ctx=n + SPARE) as server:
                time.sleep(AT_REST_S)
                ours.append(stream(server.port, body).ttft_s)
            with our_server(run, folder, n_ctx=n + SPARE, resume=True) as server:
                time.sleep(AT_REST_S)
                if server.post("/stats", {})["resumed_tokens"] < n - 1:
                    raise SystemExit(f"the chat did not come back within {AT_REST_S} s after the start")
                ours_ahead.append(stream(server.port, body).ttft_s)
        with temporary_folder() as folder:
            with llama_server(run, folder, n_ctx=n + SPARE) as server:
                cold_theirs.append(stream(server.port, {**body, "id_slot": 0}).ttft_s)
                server.post("/slots/0?action=save", {"filename": "slot.bin"})
            with llama_server(run, folder, n_ctx=n + SPARE) as server:
                time.sleep(AT_REST_S)
                started_s = time.perf_counter()
                server.post("/slots/0?action=restore", {"filename": "slot.bin"})
                theirs.append(stream(server.port, {**body, "id_slot": 0}).first_s - started_s)
            with llama_server(run, folder, n_ctx=n + SPARE) as server:
                server.post("/slots/0?action=restore", {"filename": "slot.bin"})
                time.sleep(AT_REST_S)
                theirs_ahead.append(stream(server.port, {**body, "id_slot": 0}).ttft_s)
        by_question = f"ours {ours[-1]:.4f} s, llama-server {theirs[-1]:.4f} s"
        before = f"{ours_ahead[-1]:.4f} s and {theirs_ahead[-1]:.4f} s"
        say(f"server_restore {i + 1}/{run.repeats}: {by_question}; restored before {before}")
    details = {
        "ours_s": rounded(ours, 5),
        "ours_ahead_s": rounded(ours_ahead, 5),
        "llama_server_ahead_s": rounded(theirs_ahead, 5),
        "llama_server_s": rounded(theirs, 5),
        "ours_cold_s": rounded(cold_ours),
        "llama_server_cold_s": rounded(cold_theirs),
    }
    name = "TTFT after restart ÷ llama-server with a slot restored by hand"
    yield Figure("server_restore", name, middle(ours) / middle(theirs), 1.0, True, details)
    name = "the same, both restored before the question: ours at the start by itself"
    yield Figure("server_restore", name, middle(ours_ahead) / middle(theirs_ahead), 1.0, True)


def server_chats(run: Run) -> Iterator[Figure]:
    """Chats that arrive together; the time until all have their answers. Both in their better KV mode."""
    ours: dict[str, list[float]] = {"separate": [], "unified": []}
    theirs: dict[str, list[float]] = {"separate": [], "unified": []}
    n_slots = run.sizes.n_chats
    for i in range(run.repeats):
        prompts = [run.prompt(700 + 20 * i + chat, run.sizes.chat_prompt) for chat in range(n_slots)]
        for mode in ours:
            with temporary_folder() as folder:
                for start, seconds in ((our_server, ours[mode]), (llama_server, theirs[mode])):
                    with start(run, folder, n_ctx=cells(run), n_slots=n_slots, unified=mode == "unified") as server:
                        seconds.append(_together_s(server, prompts, run.sizes.chat_answer))
        found = "; ".join(f"{mode} {ours[mode][-1]:.2f} s, llama-server {theirs[mode][-1]:.2f} s" for mode in ours)
        say(f"server_chats {i + 1}/{run.repeats}: {found}")
    my_best, best = (min(found, key=lambda mode: middle(found[mode])) for found in (ours, theirs))
    details = {
        **{f"ours_{mode}_s": rounded(seconds) for mode, seconds in ours.items()},
        **{f"llama_server_{mode}_s": rounded(seconds) for mode, seconds in theirs.items()},
        "our_better_mode": my_best,
        "better_mode": best,
    }
    name = f"{n_slots} chats together ÷ llama-server with {n_slots} slots, speed"
    yield Figure("server_chats", name, middle(theirs[best]) / middle(ours[my_best]), 1.0, False, details)


def _together_s(server: Server, prompts: list[list[int]], n_tokens: int) -> float:
    with ThreadPoolExecutor(len(prompts)) as pool:
        answers = list(pool.map(lambda prompt: stream(server.port, completion(prompt, n_tokens)), prompts))
    short = [answer.n_tokens for answer in answers if answer.n_tokens != n_tokens]
    if short:
        raise SystemExit(f"answers ended after {short} of {n_tokens} tokens; use another --seed")
    return max(answer.ended_s for answer in answers) - min(answer.sent_s for answer in answers)
