"use strict";
// Tables sort by a click on a column, lists filter by text, pictures open large; without this script the page shows everything.
const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];

const theme = document.getElementById("theme");
theme.hidden = false;
theme.addEventListener("click", () => {
  const dark = getComputedStyle(document.documentElement).colorScheme.includes("dark");
  document.documentElement.dataset.theme = dark ? "light" : "dark";
});

const valueOf = (row, column) => {
  const cell = row.cells[column];
  const text = cell.dataset.value ?? cell.textContent.trim();
  const number = Number(text.replace("−", "-"));
  return text !== "" && !Number.isNaN(number) ? number : text;
};
const order = (one, other) => {
  if (typeof one === typeof other) return typeof one === "number" ? one - other : one.localeCompare(other);
  return typeof one === "number" ? -1 : 1;
};
for (const table of all("table.sortable")) {
  const heads = all("thead th", table);
  heads.forEach((head, column) => {
    if (head.dataset.sort === "none") return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => (down ? -1 : 1) * order(valueOf(a, column), valueOf(b, column)));
      table.tBodies[0].append(...rows);
    });
  });
}

for (const form of all(".filter")) {
  const list = document.getElementById(form.dataset.list);
  const items = [...list.children];
  const texts = items.map((item) => item.textContent.toLowerCase());
  const told = form.querySelector("output");
  const apply = () => {
    const words = (form.querySelector("input")?.value ?? "").toLowerCase().split(/\s+/).filter(Boolean);
    const kinds = all("select", form).map((select) => select.value).filter(Boolean);
    let shown = 0;
    items.forEach((item, i) => {
      const tags = (item.dataset.tags ?? "").split(" ");
      const fits = words.every((word) => texts[i].includes(word)) && kinds.every((kind) => tags.includes(kind));
      item.hidden = !fits;
      shown += fits;
    });
    told.textContent = `${shown} of ${items.length} shown`;
  };
  form.hidden = false;
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  apply();
}

const maps = document.getElementById("maps");
if (maps) {
  const form = document.getElementById("map-colours");
  const tip = document.getElementById("map-tip");
  const sheet = tip.querySelector("img");
  const told = [...document.getElementById("map-rows").rows];
  form.hidden = false;
  const scale = form.querySelector(".scale");
  form.addEventListener("input", () => {
    maps.dataset.by = form.querySelector("select").value;
    if (scale) scale.hidden = maps.dataset.by !== "level";
  });
  const leave = () => { tip.hidden = true; all("circle.near", maps).forEach((each) => each.classList.remove("near")); };
  maps.addEventListener("pointerover", (event) => {
    leave();
    const i = event.target.dataset?.i;
    if (i === undefined) return;
    all(`circle[data-i="${i}"]`, maps).forEach((each) => each.classList.add("near"));
    const [prompt, , cosine] = told[i].cells;
    tip.querySelector("p").textContent = `${prompt.textContent}${cosine.textContent === "–" ? "" : ` (${cosine.textContent})`}`;
    if (sheet) {
      const side = Number(sheet.dataset.side), columns = Number(sheet.dataset.columns);
      Object.assign(sheet.parentElement.style, { width: `${2 * side}px`, height: `${2 * side}px` });
      Object.assign(sheet.style, { width: `${2 * side * columns}px`, height: "auto",
        left: `${-2 * side * (i % columns)}px`, top: `${-2 * side * Math.floor(i / columns)}px` });
    }
    tip.hidden = false;
    const place = event.target.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(place.right + 10, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${Math.max(4, Math.min(place.top, innerHeight - tip.offsetHeight - 8))}px`;
  });
  maps.addEventListener("pointerleave", leave);
}

const box = document.getElementById("lightbox");
const enlarge = (picture) => {
  const large = box.querySelector("img");
  large.src = picture.src;
  large.alt = picture.alt;
  const caption = picture.closest("figure, li, tr")?.querySelector("figcaption, .caption");
  box.querySelector("p").textContent = caption ? caption.textContent : picture.alt;
  box.showModal();
};
for (const picture of all("main figure img")) {
  picture.tabIndex = 0;
  picture.setAttribute("role", "button");
  picture.addEventListener("click", () => enlarge(picture));
  picture.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); enlarge(picture); }
  });
}
box.addEventListener("click", (event) => { if (event.target === box) box.close(); });

const links = new Map(all("nav a").map((link) => [link.hash.slice(1), link]));
const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    links.forEach((link) => link.removeAttribute("aria-current"));
    links.get(entry.target.id)?.setAttribute("aria-current", "true");
  }
}, { rootMargin: "-20% 0px -75% 0px" });
all("main > section").forEach((section) => seen.observe(section));
