"use strict";
// A reviewer's keys, drafts and saving. Everything works without it, as plain forms; what counts is decided elsewhere.
(() => {
  const DRAFT = "tunegate.draft.";
  const said = document.getElementById("said");
  const help = document.getElementById("help");
  let main, form, groups, now, busy = false, quiet;

  // A browser may forbid storage; then drafts last as long as the page.
  const kept = {
    get: (name) => { try { return JSON.parse(localStorage.getItem(name)); } catch { return null; } },
    set: (name, value) => { try { localStorage.setItem(name, JSON.stringify(value)); } catch { /* see above */ } },
    drop: (name) => { try { localStorage.removeItem(name); } catch { /* see above */ } },
    drafts: () => { try { return Object.keys(localStorage).filter((name) => name.startsWith(DRAFT)); } catch { return []; } },
  };

  function say(text, bad = false) {
    clearTimeout(quiet);
    said.textContent = text;
    said.className = bad ? "said bad" : "said";
    if (!bad) quiet = setTimeout(() => said.classList.add("quiet"), 2500);
  }

  // -- the item that is shown ------------------------------------------------------------------------------------

  function begin() {
    main = document.querySelector("main");
    form = document.getElementById("rating");
    groups = [...document.querySelectorAll(".rating .criterion")];
    document.getElementById("help-button")?.removeAttribute("hidden");
    if (!form) return;
    form.noValidate = true;
    const draft = kept.get(DRAFT + main.dataset.review);
    if (draft) restore(draft);
    mark(main.dataset.state === "open" ? unscored() : 0);
    if (draft) say("What you entered before is still here. It is not saved yet.");
  }

  const chosen = (group) => group.querySelector("input:checked");
  const title = (group) => group.querySelector("strong").textContent;

  // The first criterion without a score; behind the last where all have one.
  function unscored() {
    const index = groups.findIndex((group) => !chosen(group));
    return index < 0 ? groups.length : index;
  }

  function mark(index) {
    groups.forEach((group, at) => group.classList.toggle("now", at === index));
    now = index;
  }

  function go(index) {
    if (index < 0 || index > groups.length) return;
    mark(index);
    (groups[index] || document.getElementById("save")).focus();
  }

  function score(value) {
    if (now >= groups.length) return;
    const box = groups[now].querySelector(`input[value="${value}"]`);
    box.checked = true;
    changed();
    say(`${title(groups[now])} ${value}`);
    go(now + 1);
  }

  function flag(index) {
    const box = form.querySelectorAll("#flags input")[index];
    box.checked = !box.checked;
    changed();
    say(`${box.name} ${box.checked ? "flagged" : "not flagged"}`);
  }

  // -- drafts: what is entered and not saved, by item --------------------------------------------------------------

  const answers = () => [...new FormData(form)].filter(([name]) => !["form_token", "hash", "state", "once"].includes(name));

  function changed() {
    // What was sent before and got no answer is another request now.
    form.elements.once.value = [...crypto.getRandomValues(new Uint8Array(16))].map((n) => n.toString(16).padStart(2, "0")).join("");
    kept.set(DRAFT + main.dataset.review, { answers: answers(), once: form.elements.once.value });
  }

  function restore(draft) {
    for (const box of form.querySelectorAll("input[type=radio], input[type=checkbox]")) {
      box.checked = draft.answers.some(([name, value]) => name === box.name && value === box.value);
    }
    form.elements.comment.value = (draft.answers.find(([name]) => name === "comment") || ["", ""])[1];
    form.elements.once.value = draft.once;
  }

  // -- saving ------------------------------------------------------------------------------------------------------

  function save() {
    const missing = unscored();
    if (missing < groups.length) {
      go(missing);
      say(`${title(groups[missing])} has no score yet.`, true);
    } else {
      send(form, "Saved");
    }
  }

  async function send(which, done) {
    if (busy) return;
    busy = true;
    main.setAttribute("aria-busy", "true");
    try {
      const body = new URLSearchParams(new FormData(which));
      const answer = await fetch(which.action, { method: "POST", body });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (page.querySelector("main[data-review]")) {
        show(page, answer, done);
      } else if (answer.status === 401 || answer.status === 403) {
        location.assign("/review"); // the session ended: sign in and go on, the draft is kept
      } else {
        say(`Not saved: ${(page.querySelector(".problem") || page.body).textContent}`, true);
      }
    } catch {
      say("No answer came, so this may not be saved. What you entered is kept; send it again.", true);
    } finally {
      busy = false;
      main.removeAttribute("aria-busy");
    }
  }

  function show(page, answer, done) {
    const next = page.querySelector("main");
    // What was refused stays entered, unless the item turns out to be saved, or skipped, from elsewhere.
    if (answer.ok || (answer.status === 409 && next.dataset.state !== "open")) kept.drop(DRAFT + main.dataset.review);
    main.replaceWith(next);
    document.title = page.title;
    history.replaceState(null, "", answer.url);
    window.scrollTo(0, 0);
    begin();
    const heading = main.querySelector("h1");
    heading.focus({ preventScroll: true });
    const notice = page.getElementById("said").textContent;
    say(notice || `${done}. ${heading.textContent}`, Boolean(notice));
  }

  // -- keys --------------------------------------------------------------------------------------------------------

  const follow = (id) => () => document.getElementById(id)?.click();
  const KEYS = {
    arrowup: () => go(now - 1),
    arrowdown: () => go(now + 1),
    arrowleft: follow("before"),
    arrowright: follow("after"),
    u: follow("undo"),
    h: () => form && flag(0),
    f: () => document.getElementById("flags")?.focus(),
    c: () => document.getElementById("comment")?.focus(),
    s: () => {
      const skip = document.getElementById("skip");
      if (skip) { skip.open = true; document.getElementById("reason").focus(); }
    },
    pageup: () => scroll(-1),
    pagedown: () => scroll(1),
    "?": () => help?.showModal(),
  };

  function scroll(pages) {
    const pane = document.querySelector(".output .pane");
    pane?.scrollBy({ top: pages * pane.clientHeight * 0.9 });
  }

  function escape(target) {
    const skip = target.closest("#skip");
    if (skip) skip.open = false;
    if (groups.length && (skip || target.closest(".more"))) go(unscored());
  }

  function press(event) {
    const target = event.target;
    const writing = target.matches("textarea, input:not([type=radio], [type=checkbox])");
    if (help?.open || event.isComposing || event.altKey) return;
    if (event.key === "Escape") return escape(target);
    if (event.ctrlKey || event.metaKey) {
      if (event.key === "Enter" && target.closest("#rating") && !target.closest("#skip")) save();
      return;
    }
    if (writing || busy || kept.get("tunegate.keys") === false) return;
    const key = event.key.toLowerCase();
    // Rows of digits that need Shift, as on French keyboards, are known by where they are.
    const digit = /^[1-5]$/.test(key) ? key : key === "?" ? null : /^Digit([1-5])$/.exec(event.code)?.[1];
    if (key === "enter") {
      if (!form || target.closest("a, summary, button:not(#save)")) return;
      if (!event.repeat) save();
    } else if (digit && form) {
      if (event.repeat) return;
      if (target.closest("#flags")) {
        if (digit <= 3) { flag(digit - 1); go(unscored()); }
      } else {
        score(digit);
      }
    } else if (KEYS[key] && !(target.closest(".pane") && /^arrow(up|down)|^page/.test(key))) {
      KEYS[key]();
    } else {
      return;
    }
    event.preventDefault();
  }

  document.addEventListener("keydown", press);
  document.addEventListener("input", (event) => {
    if (event.target.id === "keys-on") kept.set("tunegate.keys", event.target.checked);
    else if (form && event.target.form === form) {
      changed();
      if (event.target.type === "radio") mark(unscored());
    }
  });
  document.addEventListener("focusin", (event) => {
    const index = groups.indexOf(event.target.closest(".criterion"));
    if (index >= 0) mark(index);
  });
  document.addEventListener("submit", (event) => {
    if (event.target.id === "sign-out") kept.drafts().forEach(kept.drop);
    if (event.target.id !== "rating" && event.target.id !== "skipping") return;
    event.preventDefault();
    if (event.target.id === "rating") save();
    else send(event.target, "Skipped");
  });
  document.addEventListener("click", (event) => {
    if (event.target.closest("#help-button")) help.showModal();
  });
  window.addEventListener("storage", (event) => {
    // Saved in another tab, or signed out there.
    if (main.dataset.review && event.key === DRAFT + main.dataset.review && event.newValue === null) location.assign("/review");
  });
  window.addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });

  begin();
  if (help) document.getElementById("keys-on").checked = kept.get("tunegate.keys") !== false;
})();
