// What the page does by itself: theme, menu, keyboard, drop anywhere, opened sources, and clicks handed to the server.
(() => {
  "use strict";

  const ROOT = "/hearth";
  const STATUS_EVERY_MS = { ready: 15000, other: 700 };
  const CONFIRM_MS = 3500;
  const REOPEN_MS = 300; // in which Gradio opens its stream for an event that it has just sent
  const NARROW = window.matchMedia("(max-width: 820px)");

  // ---- theme: the system's, until the user chooses

  const systemDark = window.matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (localStorage.getItem("hearth-theme") ?? (systemDark.matches ? "dark" : "light")) === "dark";

  function applyTheme() {
    document.body.classList.toggle("dark", isDark());
    document.documentElement.style.colorScheme = isDark() ? "dark" : "light";
  }

  function toggleTheme() {
    const wanted = isDark() ? "light" : "dark";
    if ((wanted === "dark") === systemDark.matches) localStorage.removeItem("hearth-theme");
    else localStorage.setItem("hearth-theme", wanted);
    applyTheme();
  }

  // ---- the bridge: commands for the server

  function send(command) {
    if (window.hearthTrigger) window.hearthTrigger("click", command);
    else window.addEventListener("hearth-bridge", () => window.hearthTrigger("click", command), { once: true });
  }

  // ---- results: Gradio's stream of them closes when nothing is pending, and nobody opens it again for an event that was
  // sent just then. Another event does.

  const plainFetch = window.fetch;
  const waiting = new Set(); // events without a result
  const early = new Set(); // results that came before their event had its name here
  let openStreams = 0;

  async function readResults(response) {
    const reader = response.clone().body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        if (!line.startsWith("data:") || !line.includes("process_completed")) continue;
        const { msg, event_id: event } = JSON.parse(line.slice(5));
        if (msg === "process_completed" && !waiting.delete(event)) early.add(event);
      }
    }
  }

  function fetchLost() {
    if (openStreams || !waiting.size) return;
    waiting.clear(); // once for each: a server that was started anew knows nothing of them
    send({ action: "fetch" });
  }

  function streamEnded() {
    openStreams -= 1;
    window.setTimeout(fetchLost, REOPEN_MS);
  }

  window.fetch = async (resource, options) => {
    const address = String(resource.url ?? resource);
    const streams = address.includes("/queue/data");
    if (streams) openStreams += 1;
    try {
      const response = await plainFetch(resource, options);
      if (streams) readResults(response).catch(() => {}).finally(streamEnded);
      if (address.includes("/queue/join") && response.ok) {
        const { event_id: event } = await response.clone().json().catch(() => ({}));
        if (event && !early.delete(event)) waiting.add(event);
        if (!openStreams) window.setTimeout(fetchLost, REOPEN_MS);
      }
      return response;
    } catch (error) {
      if (streams) streamEnded();
      throw error;
    }
  };

  // ---- status line

  async function showStatus() {
    let wait = STATUS_EVERY_MS.other;
    const line = document.getElementById("hearth-status");
    try {
      const status = await (await fetch(`${ROOT}/status`)).json();
      if (line) {
        const [state, ...reason] = String(status.state).split(": ");
        const percent = status.fraction == null ? "" : ` ${Math.round(100 * status.fraction)} %`;
        const here = !status.engine || status.engine === "this machine";
        const model = here ? status.model : `${status.model} at ${status.engine}`;
        const words = { ready: model, loading: `${here ? "loading" : "connecting to"} ${model}${percent}`, idle: model };
        const fails = here ? "cannot be loaded" : "does not answer";
        line.textContent = words[state] ?? `${model} ${fails}: ${reason.join(": ")}`;
        line.dataset.state = state;
        const context = status.n_ctx ? `context of ${status.n_ctx.toLocaleString()} tokens` : "";
        line.title = status.note || context || (state === "failed" ? line.textContent : "");
        if (state === "ready" && status.note) line.textContent += " (memory is short)";
        if (state !== "loading") wait = STATUS_EVERY_MS.ready;
      }
    } catch {
      if (line) {
        line.textContent = "Hearth is not running; start it again";
        line.dataset.state = "failed";
      }
    }
    window.setTimeout(showStatus, wait);
  }

  // ---- which chat is open

  function readActive() {
    const marker = document.querySelector("#hearth-active [data-chat]");
    if (!marker) return;
    const chat = marker.dataset.chat;
    const address = new URL(window.location.href);
    if ((address.searchParams.get("chat") ?? "") !== chat) {
      if (chat) address.searchParams.set("chat", chat);
      else address.searchParams.delete("chat");
      window.history.replaceState(null, "", address);
    }
    document.title = chat ? `${marker.textContent} · Hearth` : "Hearth";
    document.body.classList.toggle("hearth-running", marker.dataset.running === "1");
  }

  // Gradio labels a message with its source, HTML and all
  function labelMessages() {
    for (const [role, label] of [["user", "You said"], ["bot", "Hearth said"]]) {
      for (const message of document.querySelectorAll(`#hearth-chatbot [data-testid=${role}]`)) {
        if (message.getAttribute("aria-label") !== label) message.setAttribute("aria-label", label);
      }
    }
  }

  // ---- opened source

  async function openSource(path) {
    const panel = document.getElementById("hearth-passage");
    const response = await fetch(`${ROOT}/passage/${path}`);
    if (response.ok) panel.innerHTML = await response.text(); // drawn and escaped by the server
    else panel.textContent = await response.text();
    document.body.classList.add("hearth-panel-open");
    panel.querySelector("mark")?.scrollIntoView({ block: "center" });
  }

  // ---- clicks

  function confirmed(button) {
    const question = button.dataset.confirm;
    if (!question || button.classList.contains("asking")) return true;
    const before = Array.from(button.childNodes);
    button.classList.add("asking");
    button.textContent = question;
    window.setTimeout(() => {
      button.classList.remove("asking");
      button.replaceChildren(...before);
    }, CONFIRM_MS);
    return false;
  }

  function rename(row, id) {
    const title = row.querySelector(".open");
    const input = document.createElement("input");
    input.value = title.textContent;
    input.maxLength = 120;
    input.setAttribute("aria-label", "New title");
    title.replaceWith(input);
    input.focus();
    input.select();
    let done = false;
    const finish = (save) => {
      if (done) return;
      done = true;
      const wanted = input.value.trim();
      input.replaceWith(title);
      if (save && wanted && wanted !== title.textContent) {
        title.textContent = wanted;
        send({ action: "rename", id, title: wanted });
      }
    };
    input.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.key === "Enter") finish(true);
      if (event.key === "Escape") finish(false);
    });
    input.addEventListener("blur", () => finish(true));
  }

  function showChat() {
    document.querySelector("#hearth-tabs button[role=tab]")?.click();
    if (NARROW.matches) document.body.classList.remove("hearth-menu-open");
  }

  function onAction(button) {
    const { action, id } = button.dataset;
    if (action === "rename") rename(button.closest(".hearth-conversation"), id);
    else if (confirmed(button)) {
      if (action === "open") showChat();
      send({ action, id });
    }
  }

  const CONTROLS = {
    theme: toggleTheme,
    menu: () => document.body.classList.toggle(NARROW.matches ? "hearth-menu-open" : "hearth-menu-closed"),
    "close-panel": () => document.body.classList.remove("hearth-panel-open"),
  };

  const LINKS = {
    cite: openSource,
    sample: (id) => send({ action: "sample", id }),
    earlier: () => send({ action: "earlier" }),
  };

  document.addEventListener(
    "click",
    (event) => {
      const button = event.target.closest("button[data-action]");
      if (button) return onAction(button);
      const control = event.target.closest("[data-ui]");
      if (control) return CONTROLS[control.dataset.ui]?.();
      const link = event.target.closest('a[href^="#"]');
      const match = link?.getAttribute("href").match(/^#(\w+)\/?(.*)$/);
      if (match && LINKS[match[1]]) {
        event.preventDefault();
        LINKS[match[1]](match[2]);
      } else if (NARROW.matches && !event.target.closest("#hearth-side")) {
        document.body.classList.remove("hearth-menu-open");
      }
      return undefined;
    },
    true,
  );

  // ---- keyboard

  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      const stop = document.querySelector("#hearth-box .stop-button");
      if (stop) stop.click();
      else document.body.classList.remove("hearth-panel-open", "hearth-menu-open");
    } else if (event.ctrlKey && event.shiftKey && event.key.toLowerCase() === "o") {
      event.preventDefault();
      showChat();
      send({ action: "new" });
      document.querySelector("#hearth-box textarea")?.focus();
    }
  });

  // ---- drop anywhere

  let depth = 0;
  const hasFiles = (event) => Array.from(event.dataTransfer?.types ?? []).includes("Files");
  const visible = (element) => element && element.offsetParent !== null;

  function dropTarget() {
    const memory = document.querySelector("#hearth-memory-files input[type=file]");
    if (memory && visible(document.getElementById("hearth-memory"))) return memory;
    return document.querySelector("#hearth-box input[type=file]");
  }

  document.addEventListener("dragenter", (event) => {
    if (!hasFiles(event)) return;
    depth += 1;
    document.body.classList.add("hearth-dropping");
  });
  document.addEventListener("dragleave", (event) => {
    if (!hasFiles(event)) return;
    depth = Math.max(0, depth - 1);
    if (depth === 0) document.body.classList.remove("hearth-dropping");
  });
  document.addEventListener("dragover", (event) => {
    if (hasFiles(event)) event.preventDefault();
  });
  document.addEventListener(
    "drop",
    (event) => {
      depth = 0;
      document.body.classList.remove("hearth-dropping");
      if (!hasFiles(event)) return;
      event.preventDefault();
      event.stopPropagation(); // the boxes under the pointer must not take the files a second time
      const input = dropTarget();
      if (!input) return;
      const files = new DataTransfer();
      for (const file of event.dataTransfer.files) files.items.add(file);
      input.files = files.files;
      input.dispatchEvent(new Event("change", { bubbles: true }));
    },
    true,
  );

  // ---- start

  function start() {
    applyTheme();
    systemDark.addEventListener("change", applyTheme);
    new MutationObserver(() => {
      if (document.body.classList.contains("dark") !== isDark()) applyTheme();
    }).observe(document.body, { attributes: true, attributeFilter: ["class"] });
    let scheduled = false;
    new MutationObserver(() => {
      if (scheduled) return;
      scheduled = true;
      window.requestAnimationFrame(() => {
        scheduled = false;
        readActive();
        labelMessages();
      });
    }).observe(document.body, { subtree: true, childList: true, attributes: true, attributeFilter: ["data-chat", "data-running"] });
    showStatus();
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
