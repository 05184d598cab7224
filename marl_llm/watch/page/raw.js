// A long text, page by page: only 100,000 characters of it are ever in the document.

import { get, tellError } from "./api.js";
import { h, put } from "./dom.js";
import { size, visible } from "./text.js";

/** With a comma after each three digits. */
function grouped(count) {
  return count.toLocaleString("en");
}

/** A button that shows all of a text that was cut. `length`: in characters. */
export function rawText(id, turn, field, length) {
  const place = h("div", { class: "raw" });
  const begun = [];

  async function load(offset) {
    try {
      const found = await get("/api/text", { id, turn, field, offset });
      const to = found.next ?? found.length;
      put(
        place,
        h(
          "p",
          { class: "muted" },
          `${field}, characters ${grouped(offset)} to ${grouped(to)} of ${grouped(found.length)} `,
        ),
        h(
          "pre",
          { tabIndex: 0, role: "region", "aria-label": `${field}, raw`, data: { raw: field } },
          visible(found.text),
        ),
        h(
          "p",
          { class: "pages" },
          begun.length ? h("button", { type: "button", on: { click: () => load(begun.pop()) } }, "Previous") : null,
          found.next === null
            ? null
            : h(
                "button",
                {
                  type: "button",
                  on: {
                    click: () => {
                      begun.push(offset);
                      load(found.next);
                    },
                  },
                },
                "Next",
              ),
          h("button", { type: "button", class: "quiet", on: { click: close } }, "Close"),
        ),
      );
    } catch (error) {
      tellError(place, error);
    }
  }

  function close() {
    begun.length = 0;
    put(
      place,
      h(
        "button",
        {
          type: "button",
          class: "quiet",
          data: { showAll: field },
          on: { click: () => load(0) },
        },
        `Show all of the ${field} (${size(length)})`,
      ),
    );
  }

  close();
  return place;
}
