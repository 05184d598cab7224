// Draws the charts when they come near, in the scheme of the reader, and finds decisions.
"use strict";

const specs = JSON.parse(document.getElementById("specs").textContent);
const looks = JSON.parse(document.getElementById("looks").textContent);
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const drawn = new Map();

async function draw(place) {
  const spec = specs[place.dataset.chart];
  const before = drawn.get(place);
  drawn.set(place, null);
  if (before) before.finalize();
  const config = dark.matches ? looks.dark : looks.light;
  const options = { config, actions: false, renderer: "svg", ast: false, tooltip: { theme: dark.matches ? "dark" : "light" } };
  drawn.set(place, await window.vegaEmbed(place, spec, options));
  place.classList.add("drawn");
}

const places = [...document.querySelectorAll(".plot")];
const near = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting) {
        near.unobserve(entry.target);
        draw(entry.target);
      }
    }
  },
  { rootMargin: "600px" },
);
for (const place of places) near.observe(place);
dark.addEventListener("change", () => [...drawn.keys()].forEach(draw));
window.addEventListener("beforeprint", () => places.filter((place) => !drawn.has(place)).forEach(draw));

const find = document.getElementById("find");
if (find) {
  find.closest("p").hidden = false;
  const decisions = [...document.querySelectorAll(".decision")];
  const texts = decisions.map((one) => `${one.querySelector("h4").textContent} ${one.querySelector(".saw")?.textContent ?? ""}`.toLowerCase());
  find.addEventListener("input", () => {
    const wanted = find.value.trim().toLowerCase();
    let count = 0;
    decisions.forEach((one, number) => {
      one.hidden = !texts[number].includes(wanted);
      count += one.hidden ? 0 : 1;
      for (const rows of document.querySelectorAll(`[data-decision="${one.id}"]`)) rows.hidden = one.hidden;
    });
    document.getElementById("found").textContent = wanted ? `${count} of ${decisions.length}` : "";
  });
}
