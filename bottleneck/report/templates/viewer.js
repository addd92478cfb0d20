// What is known of one image, in a dialog; and the pieces that every picture on the page is made of.
const DATA = JSON.parse(document.getElementById("data").textContent);
const SUSPECTS = new Set(DATA.suspects);
const SEEN = new Set(DATA.seen);
const element = (tag, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};
const source = (i) => "data:image/webp;base64," + DATA.pictures[i];
const sureness = (score) => (HAS_PROBA ? (100 * score).toFixed(1) + "\u00a0%" : score.toFixed(2));
const label = (code) => DATA.labels[code];
const isWrong = (i) => DATA.true[i] !== DATA.predicted[i];
const caption = (i) => isWrong(i) ? `${label(DATA.true[i])}, taken for ${label(DATA.predicted[i])}` : label(DATA.true[i]);

const tile = (i) => {
  const button = element("button", { type: "button", className: "tile" });
  button.dataset.image = i;
  button.append(DATA.pictures[i]
    ? element("img", { src: source(i), alt: caption(i), title: DATA.ids[i], decoding: "async" })
    : element("span", { className: "gone quiet", textContent: "can no longer be read" }));
  return button;
};

const card = (i) => element("li", {}, tile(i),
  element("p", {}, element("span", { className: isWrong(i) ? "taken" : "met" },
    element("bdi", { textContent: label(DATA.predicted[i]) })), " " + sureness(DATA.certainty[i])),
  ...(isWrong(i) ? [element("p", {}, "is ", element("bdi", { textContent: label(DATA.true[i]) }))] : []),
  element("p", { className: "quiet name", title: DATA.ids[i] }, element("bdi", { textContent: DATA.names[i] })));

const viewer = {
  dialog: document.getElementById("viewer"),
  order: [],
  position: 0,

  // Open one image; the arrows go through `order`.
  open(i, order) {
    this.order = order;
    this.position = Math.max(0, order.indexOf(i));
    this.show(i);
    if (!this.dialog.open) this.dialog.showModal();
  },

  move(step) {
    this.position = (this.position + step + this.order.length) % this.order.length;
    this.show(this.order[this.position]);
  },

  show(i) {
    const picture = document.getElementById("viewer-image");
    picture.hidden = !DATA.pictures[i];
    if (DATA.pictures[i]) picture.src = source(i);
    picture.alt = caption(i);
    document.getElementById("viewer-title").textContent = caption(i);
    document.getElementById("viewer-id").textContent = DATA.ids[i];
    document.getElementById("viewer-count").textContent =
      `${(this.position + 1).toLocaleString("en")} of ${this.order.length.toLocaleString("en")}`;
    const tags = [
      ...(isWrong(i) ? ["mistake"] : []),
      ...(SUSPECTS.has(i) ? ["doubtful label"] : []),
      ...(DATA.copies[i] === null ? [] : ["has a copy"]),
      ...(SEEN.has(i) ? ["trained on"] : []),
    ];
    document.getElementById("viewer-tags").replaceChildren(
      ...tags.flatMap((text) => [element("span", { className: "tag", textContent: text }), " "]));
    document.getElementById("likeliest").replaceChildren(...DATA.likeliest[i].map(([code, score]) => {
      const bar = element("i");
      bar.style.setProperty("--share", HAS_PROBA ? score : 0);
      return element("div", { className: code === DATA.true[i] ? "true" : "" },
        element("dt", {}, element("bdi", { textContent: label(code) })),
        element("dd", {}, bar, element("span", { textContent: sureness(score) })));
    }));
    document.getElementById("similar-part").hidden = !DATA.neighbours[i].length;
    document.getElementById("similar").replaceChildren(...DATA.neighbours[i].map((other) => element("li", {},
      tile(other), element("p", { className: isWrong(other) ? "taken" : "" }, element("bdi", { textContent: label(DATA.true[other]) })))));
  },
};

document.getElementById("before").addEventListener("click", () => viewer.move(-1));
document.getElementById("after").addEventListener("click", () => viewer.move(1));
document.getElementById("close").addEventListener("click", () => viewer.dialog.close());
viewer.dialog.addEventListener("click", (event) => { if (event.target === viewer.dialog) viewer.dialog.close(); });
viewer.dialog.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (step) { event.preventDefault(); viewer.move(step); }
});
document.addEventListener("click", (event) => {
  const pressed = event.target.closest("[data-image]");
  if (!pressed) return;
  const i = Number(pressed.dataset.image);
  const list = pressed.closest(".cards:not(#similar)");
  const order = pressed.closest("#cards") ? gallery.shown
    : list ? [...list.querySelectorAll("[data-image]")].map((other) => Number(other.dataset.image)) : [i];
  viewer.open(i, order);
});
