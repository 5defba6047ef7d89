// Keeps the live parts of a page fresh and takes dropped files. Without it every page and form works as well.
"use strict";

const EVERY_MS = 2000;

function busy(element) {
  return element.contains(document.activeElement) || element.querySelector("details[open]") !== null;
}

// Puts the new blocks where the old ones are. Pictures that are shown already move over and are not loaded again; for
// that they must not leave the document, so the new blocks come into it before the old ones go.
function swap(region, before, after) {
  const shown = new Map();
  for (const old of before) {
    for (const image of old.querySelectorAll("img")) shown.set(image.getAttribute("src"), image);
  }
  const places = [];
  for (const next of after) {
    for (const image of next.querySelectorAll("img")) {
      const same = shown.get(image.getAttribute("src"));
      if (!same) continue;
      const place = document.createElement("span");
      image.replaceWith(place);
      places.push([place, same]);
    }
  }
  if (before.length) before[0].before(...after);
  else region.append(...after);
  for (const [place, same] of places) place.replaceWith(same);
  for (const old of before) old.remove();
}

// Block by block, so that whoever works in one of them with the keyboard is left alone there.
function update(region, html) {
  const fresh = new DOMParser().parseFromString(html, "text/html").body;
  const [before, after] = [[...region.children], [...fresh.children]];
  if (before.length !== after.length) {
    if (!busy(region)) swap(region, before, after);
    return;
  }
  before.forEach((old, i) => {
    const next = after[i];
    if (old.outerHTML === next.outerHTML || busy(old)) return;
    if (old.tagName === next.tagName && !old.children.length && !next.children.length) {
      old.textContent = next.textContent; // the same element: a screen reader announces what changed
    } else {
      swap(region, [old], [next]);
    }
  });
}

function tell(text) {
  const stale = document.getElementById("stale");
  if (stale.textContent !== text) stale.textContent = text;
  stale.hidden = !text;
}

async function refresh(region) {
  try {
    const response = await fetch(region.dataset.live, { headers: { "x-part": "1" }, redirect: "error" });
    if (response.status === 401) return tell("The session has ended: load the page again to sign in.");
    if (!response.ok) return tell(`The page cannot be refreshed (${response.status}).`);
    update(region, await response.text());
    tell("");
  } catch {
    tell("The miner does not answer; what is shown is old.");
  }
}

function live(region) {
  let running = false;
  const tick = async () => {
    if (running || document.hidden) return;
    running = true;
    await refresh(region);
    running = false;
  };
  setInterval(tick, EVERY_MS);
  document.addEventListener("visibilitychange", tick);
}

function says(element, text) {
  const line = document.createElement("p");
  line.className = "told bad";
  line.textContent = text;
  element.replaceChildren(line);
}

async function analyse(form, file) {
  const result = document.getElementById("result");
  const button = form.querySelector("button");
  if (!file) return says(result, "Choose an image or a video first.");
  if (file.size > Number(form.dataset.most)) return says(result, "That file is too large.");
  const body = new FormData();
  body.append("csrf", form.elements.csrf.value);
  body.append("file", file);
  result.setAttribute("aria-busy", "true");
  button.disabled = true;
  try {
    const response = await fetch(form.action, { method: "POST", body, headers: { "x-part": "1" }, redirect: "error" });
    const text = await response.text();
    const isPage = (response.headers.get("content-type") || "").startsWith("text/html");
    const fresh = new DOMParser().parseFromString(text, "text/html");
    if (!isPage) says(result, text.trim());
    else result.replaceChildren(...(fresh.querySelector("main") || fresh.body).children);
  } catch {
    says(result, "The miner does not answer.");
  }
  button.disabled = false;
  result.setAttribute("aria-busy", "false");
}

function takeDrops(form) {
  const area = document.getElementById("drop");
  const input = form.elements.file;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    analyse(form, input.files[0]);
  });
  for (const kind of ["dragenter", "dragover"]) {
    area.addEventListener(kind, (event) => {
      event.preventDefault();
      area.classList.add("over");
    });
  }
  area.addEventListener("dragleave", (event) => {
    if (!area.contains(event.relatedTarget)) area.classList.remove("over");
  });
  area.addEventListener("drop", (event) => {
    event.preventDefault();
    area.classList.remove("over");
    analyse(form, event.dataTransfer.files[0]);
  });
  // A file that misses the area must not replace the page.
  for (const kind of ["dragover", "drop"]) document.addEventListener(kind, (event) => event.preventDefault());
}

for (const region of document.querySelectorAll("[data-live]")) live(region);
const form = document.getElementById("analyse");
if (form) takeDrops(form);
