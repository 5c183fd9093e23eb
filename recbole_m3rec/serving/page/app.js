// The page: a history, what the model recommends for it, and why. No library, no build step.

const $ = (id) => document.getElementById(id);
const state = { about: null, history: [], user: "", weights: {}, open: null };
const LONGEST = 1000, LONGEST_ID = 256; // that the service takes
const LONGEST_ADDRESS = 64000; // in characters

// Asking the service

class Unanswered extends Error {}

let key = kept("sessionStorage", "key");

async function ask(path, body) {
  const headers = { "content-type": "application/json" };
  if (key) headers["x-api-key"] = String.fromCharCode(...new TextEncoder().encode(key)); // UTF-8
  const sent = body ? { method: "POST", headers, body: JSON.stringify(body) } : { headers };
  // Relative, for the service may be behind a path.
  const answer = await fetch(`.${path}`, sent).catch(() => { throw new Unanswered("The service cannot be reached. Try again."); });
  if (answer.status === 401) {
    await wantKey();
    return ask(path, body);
  }
  const content = await answer.json().catch(() => null);
  if (!answer.ok || !content) throw new Unanswered(content?.detail || `The service does not answer as it should (status ${answer.status}). Try again.`);
  return content;
}

function wantKey() {
  const dialog = $("key");
  $("key-title").textContent = key ? "The service refuses this key" : "This service wants a key";
  if (!dialog.open) dialog.showModal();
  return new Promise((done) =>
    dialog.addEventListener("close", () => { key = $("key-value").value; kept("sessionStorage", "key", key); done(); }, { once: true }));
}

// Sets and returns what the browser keeps: null where it may keep nothing.
function kept(storage, name, value) {
  try {
    if (value !== undefined) window[storage].setItem(name, value);
    return window[storage].getItem(name);
  } catch { return null; }
}

// What no handler catches: the answers that are not there.
addEventListener("unhandledrejection", (event) => {
  if (!(event.reason instanceof Unanswered)) return;
  event.preventDefault();
  $("near").close(); // it would hide the note
  say(event.reason.message);
});

// Of several calls that come while one runs, only the newest is made.
function newest(work) {
  let running = false, waiting = null;
  return async function run(...given) {
    if (running) { waiting = given; return; }
    running = true;
    try { await work(...given); } finally {
      running = false;
      if (waiting) { const next = waiting; waiting = null; run(...next); }
    }
  };
}

// Making elements; text never becomes markup

function make(tag, options = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (name === "class") element.className = value;
    else if (name === "on") for (const [event, run] of Object.entries(value)) element.addEventListener(event, run);
    else if (name === "css") for (const [property, set] of Object.entries(value)) element.style.setProperty(property, set);
    else if (value !== undefined && value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function cross() {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  path.setAttribute("d", "m7 7 10 10M17 7 7 17");
  svg.append(path);
  return svg;
}

const KNOWN = ["text", "image", "id", "repetition"];
const colour = (modality) => `var(--${KNOWN.includes(modality) ? modality : "other"})`;
const named = (modality) => ({ id: "Taste", repetition: "Again" })[modality]
  || modality[0].toUpperCase() + modality.slice(1);
const title = (item) => item.title || item.item;
const about = (item) => [item.year, item.brand, item.categories, item.price].filter(Boolean).join(" · ");
const number = (value) => (value < 0 ? "−" : "") + Math.abs(value).toFixed(2);

function hash(text) {
  let value = 2166136261;
  for (const letter of text) value = Math.imul(value ^ letter.codePointAt(0), 16777619);
  return value >>> 0;
}

const HUES = [262, 284, 306, 336, 2, 20, 36, 158, 178, 196, 216, 240]; // none of them muddy

function tile(item, size) {
  const first = (item.categories || item.brand || title(item)).split(/[\s,|]+/)[0];
  const css = { "--h": HUES[hash(first.toLowerCase()) % HUES.length] + (hash(title(item)) % 16), "--x": `${hash(title(item)) % 100}%` };
  const letters = title(item).replace(/^(the|a|an)\s+/i, "").split(/\s+/).filter((word) => /^[\p{L}\p{N}]/u.test(word));
  const initials = (letters.slice(0, 2).map((word) => [...word][0]).join("") || "·").toUpperCase();
  const picture = item.picture && make("img", { src: `.${item.picture}`, alt: "", loading: "lazy" });
  if (size === "small") return make("span", { class: "tile small", "aria-hidden": "true", css }, picture || initials);
  return make("div", { class: picture ? "tile pictured" : "tile", "data-initial": picture ? null : initials[0], css },
    picture, make("strong", { dir: "auto" }, title(item)));
}

function lines(item) {
  return make("div", { class: "lines" }, make("b", { dir: "auto" }, title(item)), make("span", { dir: "auto" }, about(item)));
}

function say(message) { $("note").textContent = message; }

// The history

function add(item) {
  state.history.push(item);
  state.history = state.history.slice(-LONGEST);
  changed();
}

function remove(place) {
  const row = state.history.length - 1 - place; // the newest comes first
  state.edited = true;
  state.history.splice(place, 1);
  changed();
  const rows = $("history").children;
  (rows[Math.min(row, rows.length - 1)]?.querySelector("button") || $("results")).focus({ preventScroll: true });
}

function clear() {
  state.history = [];
  state.user = "";
  changed();
  $("results").focus({ preventScroll: true }); // the button is gone
}

function changed() {
  hideWhy();
  $("whose").textContent = state.user ? `History of ${state.user}` : "History";
  $("nothing").hidden = state.history.length > 0;
  $("clear").hidden = state.history.length === 0;
  const shown = state.history.map((item, place) => ({ item, place })).reverse().slice(0, 100);
  $("history").replaceChildren(...shown.map(({ item, place }) =>
    make("li", { "data-item": item.item }, tile(item, "small"), lines(item),
      make("button", {
        class: "ghost icon", type: "button", "aria-label": `Remove ${title(item)}`,
        on: { click: () => remove(place) },
      }, cross()))));
  let ids = state.history.map((item) => encodeURIComponent(item.item)).join(",");
  if (ids.length > LONGEST_ADDRESS) ids = ids.slice(ids.indexOf(",", ids.length - LONGEST_ADDRESS) + 1); // the newest
  const hash_ = state.user && !state.edited ? `#user=${encodeURIComponent(state.user)}` : ids ? `#items=${ids}` : "#";
  history.replaceState(null, "", hash_);
  recommend();
}

async function chooseUser(user) {
  const { items } = await ask(`/history?user=${encodeURIComponent(user)}`);
  state.user = user;
  state.edited = false;
  state.history = items;
  changed();
}

// Recommendations

const COUNTS = ["No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten", "Eleven", "Twelve"];

const recommend = newest(async () => {
  if (!state.about) return start();
  const weights = Object.fromEntries(Object.entries(state.weights).filter(([, weight]) => weight !== 1));
  const asked = { history: state.history.map((item) => item.item), k: COUNTS.length - 1, explain: true, weights };
  const answer = await ask("/recommend", asked);
  if (answer.bundle !== state.about.bundle) await describe(); // the service has taken another
  const weighed = Object.keys(weights).length ? ", with your weights" : "";
  const unknown = answer.unknown_items ? `, ${answer.unknown_items} of them unknown` : "";
  const shown = answer.items.length, all = state.about.items;
  if (!shown) say("Nothing is left to recommend: the history has every item.");
  else if (unknown && answer.source === "popular") say("The model knows nothing in this history, so this is what is used most.");
  else if (answer.source === "popular") say("Nothing is known of you yet, so this is what is used most. Add something, and the model takes over.");
  else say(`${COUNTS[shown]} of ${all.toLocaleString("en")} ${all === 1 ? "item" : "items"} for a history of ${state.history.length}${unknown}${weighed}. Hover or tap ${shown === 1 ? "it" : "one"} to see why.`);
  showCards(answer.items);
});

function showCards(items) {
  const list = $("cards");
  const before = new Map([...list.children].map((card) => [card.dataset.item, card.getBoundingClientRect()]));
  const focused = document.activeElement?.closest("#cards .card"), place = [...list.children].indexOf(focused);
  list.replaceChildren(...items.map((item) => card(item)));
  if (focused) {
    const next = [...list.children].find((card) => card.dataset.item === focused.dataset.item) || list.children[Math.min(place, items.length - 1)];
    (next?.querySelector("button") || $("results")).focus({ preventScroll: true });
  }
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  for (const element of list.children) {
    const from = before.get(element.dataset.item), to = element.getBoundingClientRect();
    const timing = { duration: 380, easing: "cubic-bezier(.2,.8,.2,1)" };
    if (from) element.animate([{ transform: `translate(${from.x - to.x}px, ${from.y - to.y}px)` }, { transform: "none" }], timing);
    else element.animate([{ opacity: 0, transform: "scale(.96)" }, { opacity: 1, transform: "none" }], timing);
  }
}

function shares(terms) {
  const entries = Object.entries(terms).filter(([, value]) => value !== 0);
  const whole = entries.reduce((sum, [, value]) => sum + Math.abs(value), 0) || 1;
  return entries.map(([modality, value]) => ({ modality, value, share: Math.abs(value) / whole }));
}

function card(item) {
  const parts = item.terms ? shares(item.terms) : [];
  const label = parts.map((part) => `${named(part.modality)} ${Math.round(100 * part.share)} %${part.value < 0 ? " against" : ""}`).join(", ");
  const bar = item.terms && make("div", { class: "bar", role: "img", "aria-label": label },
    ...parts.map((part) => make("i", {
      class: part.value < 0 ? "against" : "", title: `${named(part.modality)} ${number(part.value)}`,
      css: { "--c": colour(part.modality), "--w": `${100 * part.share}%` },
    })));
  const legend = item.terms && make("div", { class: "legend", "aria-hidden": "true" },
    ...parts.map((part) => make("span", {},
      make("span", { class: "dot", css: { "--c": colour(part.modality) } }),
      `${named(part.modality)} ${part.value < 0 ? "−" : ""}${Math.round(100 * part.share)} %`)));
  const element = make("li", { class: "card", "data-item": item.item },
    tile(item), make("span", { class: "rank", "aria-label": `Rank ${item.rank}` }, String(item.rank)),
    item.cold ? make("span", { class: "cold", title: "Nobody had used it when the model was trained" }, "New") : null,
    make("div", { class: "body" },
      make("p", { class: "meta", dir: "auto" }, about(item)),
      make("div", {}, bar, legend || make("div", { class: "legend" }, `used ${Math.round(item.score).toLocaleString("en")} times`)),
      make("div", { class: "actions" },
        make("button", { class: "ghost small", type: "button", "aria-label": `Add ${title(item)} to the history`, on: { click: () => { state.edited = true; add(item); } } }, "Add"),
        item.terms ? make("button", { class: "ghost small", type: "button", "aria-label": `Why ${title(item)}`, "aria-haspopup": "dialog", on: { click: (event) => { event.stopPropagation(); showWhy(item, element, true); } } }, "Why") : null,
        make("button", { class: "ghost small", type: "button", "aria-label": `Items like ${title(item)}`, on: { click: () => showNear(item) } }, "Alike"))));
  if (item.terms) {
    let timer;
    element.addEventListener("pointerenter", (event) => { if (event.pointerType === "mouse" && $("found").hidden) timer = setTimeout(() => showWhy(item, element), 220); });
    element.addEventListener("pointerleave", () => { clearTimeout(timer); if (state.open && !state.open.kept) hideWhy(); });
    element.addEventListener("click", () => clearTimeout(timer), true);
    element.querySelector(".tile").addEventListener("click", (event) => { event.stopPropagation(); showWhy(item, element, true); });
  }
  return element;
}

// Why

async function showWhy(item, element, kept = false) {
  if (kept && state.open?.kept && state.open.item === item.item) { hideWhy(); return; }
  hideWhy();
  const open = { item: item.item, kept, element };
  state.open = open;
  element.classList.add("open");
  const found = await ask("/explain", { history: state.history.map((one) => one.item), item: item.item });
  if (state.open !== open) return;
  const weight = (modality) => state.weights[modality] ?? 1;
  const terms = Object.entries(found.terms).sort(([a, x], [b, y]) => Math.abs(y * weight(b)) - Math.abs(x * weight(a)));
  const speaking = new Set();
  const rows = terms.map(([modality, value]) => {
    const because = found.because[modality].filter((entry) => entry.effect > 0).slice(0, 3);
    because.forEach((entry) => speaking.add(entry.item));
    const css = { "--c": colour(modality) };
    return make("div", { class: "term", css },
      make("div", {}, make("span", { class: "dot" }), named(modality), make("output", {}, number(value * weight(modality)))),
      because.length ? make("div", { class: "because" }, ...because.map((entry) => make("span", { dir: "auto", title: `${title(entry)}: ${number(entry.effect)}` }, title(entry)))) : null);
  });
  const box = $("why");
  box.replaceChildren(make("h3", { id: "why-title" }, "Why ", make("bdi", {}, title(item)), "?"), ...rows,
    make("p", {}, "Without the items named, these terms would be lower. They sum to the score."));
  box.hidden = false;
  const at = element.getBoundingClientRect(), width = box.offsetWidth;
  const left = Math.max(8, Math.min(at.left + at.width / 2 - width / 2, document.documentElement.clientWidth - width - 8));
  const below = at.bottom + 8 + box.offsetHeight < innerHeight || at.top < box.offsetHeight + 8;
  box.style.left = `${left + scrollX}px`;
  box.style.top = `${(below ? at.bottom + 8 : at.top - box.offsetHeight - 8) + scrollY}px`;
  for (const row of $("history").children) row.classList.toggle("speaks", speaking.has(row.dataset.item));
  if (kept) box.focus({ preventScroll: true });
}

function hideWhy() {
  if ($("why").contains(document.activeElement)) state.open?.element.querySelector("[aria-haspopup]").focus({ preventScroll: true });
  state.open?.element.classList.remove("open");
  state.open = null;
  $("why").hidden = true;
  for (const row of $("history").children) row.classList.remove("speaks");
}

// Neighbours

async function showNear(item, modality = null) {
  hideWhy();
  const { items, reason } = await ask("/similar", { item: item.item, modality, k: 12 });
  $("near-title").replaceChildren("Like ", make("bdi", {}, title(item)));
  const tabs = [null, ...state.about.modalities];
  $("near-tabs").replaceChildren(...tabs.map((name) => make("button", {
    type: "button", role: "tab", "aria-selected": String(name === modality), tabindex: name === modality ? "0" : "-1",
    on: {
      click: () => showNear(item, name),
      keydown: (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (!step) return;
        showNear(item, tabs[(tabs.indexOf(name) + step + tabs.length) % tabs.length]);
      },
    },
  }, name ? make("span", { class: "dot", css: { "--c": colour(name) } }) : null, name ? named(name) : "All")));
  $("near-items").replaceChildren(...items.map((one) => make("li", { class: "card", "data-item": one.item },
    tile(one), one.cold ? make("span", { class: "cold" }, "New") : null,
    make("div", { class: "body" },
      make("div", { class: "bar", role: "img", "aria-label": `Cosine ${number(one.score)}` },
        make("i", { css: { "--c": modality ? colour(modality) : "var(--accent)", "--w": `${100 * Math.max(0, one.score)}%` } })),
      make("p", { class: "meta", dir: "auto" }, about(one)),
      make("div", { class: "actions" },
        make("button", { class: "ghost small", type: "button", "aria-label": `Add ${title(one)} to the history`, on: { click: () => { state.edited = true; $("near").close(); add(one); } } }, "Add"),
        make("button", { class: "ghost small", type: "button", "aria-label": `Items like ${title(one)}`, on: { click: () => showNear(one, modality) } }, "Alike"))))));
  const lacks = modality ? `${title(item)} has no ${modality}, so nothing is alike by it.` : reason;
  if (reason) $("near-items").append(make("li", { class: "alone" }, lacks));
  if (!$("near").open) $("near").showModal();
  $("near-tabs").querySelector('[aria-selected="true"]').focus(); // what had the focus is replaced
  $("near").scrollTop = 0;
}

// Search

let options = [], chosen = -1;

const search = newest(async (words) => {
  if (!state.about) await start();
  const [found, people] = await Promise.all([
    ask(`/items?limit=8&q=${encodeURIComponent(words)}`),
    state.about.has_users && words ? ask(`/users?limit=4&q=${encodeURIComponent(words)}`) : { users: [] },
  ]);
  if ($("search").value !== words) return;
  options = [];
  const rows = [];
  const option = (content, run) => {
    const place = options.length;
    const row = make("li", { role: "option", id: `option-${place}`, "aria-selected": "false", on: { pointerdown: (event) => event.preventDefault(), click: run, pointermove: () => choose(place) } }, ...content);
    options.push({ row, run });
    rows.push(row);
  };
  if (!words && found.items.length) rows.push(make("li", { class: "group", role: "presentation" }, "Used most"));
  for (const item of found.items) option([tile(item, "small"), lines(item)], () => { state.edited = true; add(item); search($("search").value = ""); });
  if (people.users.length) rows.push(make("li", { class: "group", role: "presentation" }, "Users"));
  for (const user of people.users) option([make("span", { class: "tile small", css: { "--h": hash(user) % 360 } }, "@"), make("div", { class: "lines" }, make("b", { dir: "auto" }, user))], () => { closeSearch(); chooseUser(user); });
  if (!options.length) rows.push(make("li", { class: "group", role: "option", "aria-disabled": "true", "aria-selected": "false" }, `Nothing has “${words}” in it`));
  $("found").replaceChildren(...rows);
  $("found").hidden = false;
  $("search").setAttribute("aria-expanded", "true");
  choose(words && options.length ? 0 : -1);
});

function choose(place) {
  options[chosen]?.row.setAttribute("aria-selected", "false");
  chosen = place;
  const row = options[place]?.row;
  row?.setAttribute("aria-selected", "true");
  row?.scrollIntoView({ block: "nearest" });
  if (row) $("search").setAttribute("aria-activedescendant", row.id);
  else $("search").removeAttribute("aria-activedescendant");
}

function closeSearch() {
  $("found").hidden = true;
  $("search").value = "";
  $("search").setAttribute("aria-expanded", "false");
  $("search").blur();
}

$("search").addEventListener("input", () => search($("search").value));
$("search").addEventListener("focus", () => { hideWhy(); search($("search").value); });
$("search").addEventListener("blur", () => { $("found").hidden = true; $("search").setAttribute("aria-expanded", "false"); });
$("search").addEventListener("keydown", (event) => {
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    event.preventDefault();
    const step = event.key === "ArrowDown" ? 1 : -1;
    if (options.length) choose((chosen + step + options.length) % options.length);
  } else if (event.key === "Enter" && options[chosen]) options[chosen].run();
  else if (event.key === "Escape") closeSearch();
});

// Weights

function sliders() {
  const names = [...state.about.modalities, ...(state.about.repetition ? ["repetition"] : [])];
  $("weights").hidden = names.length < 2;
  state.weights = Object.fromEntries(names.map((name) => [name, state.weights[name] ?? 1]));
  $("sliders").replaceChildren(...names.map((name) => {
    const output = make("output", { for: `weight-${name}` });
    const input = make("input", { id: `weight-${name}`, type: "range", min: 0, max: 3, step: 0.1, value: state.weights[name], "data-modality": name });
    const show = () => {
      output.textContent = `× ${Number(input.value).toFixed(1)}`;
      input.style.setProperty("--at", `${(100 * input.value) / 3}%`);
    };
    const set = () => {
      state.weights[name] = Number(input.value);
      show();
      $("even").hidden = Object.values(state.weights).every((weight) => weight === 1);
      hideWhy();
      recommend();
    };
    input.addEventListener("input", set);
    show();
    return make("div", { class: "slider", css: { "--c": colour(name) } },
      make("label", { for: `weight-${name}` }, make("span", { class: "dot" }), named(name)), output, input);
  }));
}

$("even").addEventListener("click", () => { state.weights = {}; sliders(); $("even").hidden = true; recommend(); });

// The rest

$("clear").addEventListener("click", clear);
$("anyone").addEventListener("click", async () => {
  const digit = String(Math.floor(Math.random() * 10));
  const some = await ask(`/users?limit=100&q=${digit}`);
  const { users } = some.users.length ? some : await ask("/users?limit=100");
  if (users.length) await chooseUser(users[Math.floor(Math.random() * users.length)]);
});
$("near-close").addEventListener("click", () => $("near").close());
$("near").addEventListener("click", (event) => { if (event.target === $("near")) $("near").close(); });
document.querySelector(".brand").addEventListener("click", (event) => { event.preventDefault(); clear(); });
document.addEventListener("click", (event) => { if (!event.target.closest("#why")) hideWhy(); });
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") hideWhy();
  if (event.key === "/" && !event.target.closest("input, dialog")) { event.preventDefault(); $("search").focus(); }
});

const theme = (name) => {
  document.documentElement.dataset.theme = name;
  kept("localStorage", "theme", name);
};
$("theme").addEventListener("click", () => theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
document.documentElement.dataset.theme = kept("localStorage", "theme")
  || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");

async function describe() {
  state.about = await ask("/about");
  const { model, dataset, items, modalities } = state.about;
  $("about").textContent = `${model}${dataset && ` on ${dataset}`} · ${items.toLocaleString("en")} items · ${modalities.join(" + ")}`;
  $("anyone").hidden = !state.about.has_users;
  sliders();
}

async function start() {
  await describe();
  const user = new URLSearchParams(location.hash.slice(1)).get("user");
  if (user && [...user].length <= LONGEST_ID) return chooseUser(user);
  const ids = idsOf(location.hash);
  state.user = "";
  state.history = ids.length ? (await ask("/items", { items: ids })).items : [];
  changed();
}

addEventListener("hashchange", () => { if (location.hash !== "#results") start(); }); // another history is pasted

// Ids are split before they are decoded: they may have commas.
function idsOf(address) {
  const part = address.slice(1).split("&").find((one) => one.startsWith("items=")) || "items=";
  const ids = part.slice("items=".length).split(",").map(decoded);
  return ids.filter((id) => id && [...id].length <= LONGEST_ID).slice(-LONGEST);
}

function decoded(text) {
  try { return decodeURIComponent(text); } catch { return text; } // a bare %
}

start();
