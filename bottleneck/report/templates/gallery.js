// Search, filter and sort all images; a screenful is made at a time.
const gallery = {
  shown: [],
  made: 0,
  step: 60,
  field: (id) => document.getElementById(id),

  // Where each image would stand, by each order; equals stay in the order given.
  compare: {
    unsure: (a, b) => DATA.certainty[a] - DATA.certainty[b],
    sure: (a, b) => DATA.certainty[b] - DATA.certainty[a],
    name: (a, b) => DATA.names[a].localeCompare(DATA.names[b], undefined, { numeric: true }),
    given: () => 0,
  },
  kinds: {
    wrong: isWrong,
    right: (i) => !isWrong(i),
    suspect: (i) => SUSPECTS.has(i),
    copy: (i) => DATA.copies[i] !== null,
    seen: (i) => SEEN.has(i),
  },

  update() {
    const words = this.field("find").value.toLowerCase().split(/\s+/).filter(Boolean);
    const [ofTrue, ofPredicted, ofKind] = ["of-true", "of-predicted", "of-kind"].map((id) => this.field(id).value);
    const text = (i) => [DATA.ids[i], label(DATA.true[i]), label(DATA.predicted[i])].join(" ").toLowerCase();
    const compare = this.compare[this.field("order").value];
    this.shown = DATA.ids.map((_, i) => i).filter((i) =>
      (ofTrue === "" || DATA.true[i] === Number(ofTrue))
      && (ofPredicted === "" || DATA.predicted[i] === Number(ofPredicted))
      && (ofKind === "" || this.kinds[ofKind](i))
      && (!words.length || words.every((word) => text(i).includes(word))));
    this.shown.sort((a, b) => compare(a, b) || DATA.rows[a] - DATA.rows[b]);
    this.made = 0;
    this.field("cards").replaceChildren();
    const n = this.shown.length;
    this.field("found").textContent = n === 1 ? "1 image" : `${n.toLocaleString("en")} images`;
    this.more();
  },

  more() {
    const next = this.shown.slice(this.made, this.made + this.step);
    this.field("cards").append(...next.map(card));
    this.made += next.length;
    this.field("more").hidden = this.made >= this.shown.length;
  },

  // At once, not on the form's "reset" event: that one comes before the fields are empty.
  clear() {
    this.field("filters").reset();
    this.update();
  },

  // Show only the images of one cell of the confusion matrix.
  showCell(ofTrue, ofPredicted) {
    this.field("filters").reset();
    this.field("of-true").value = ofTrue;
    this.field("of-predicted").value = ofPredicted;
    this.update();
    this.field("images").scrollIntoView();
    this.field("of-true").focus({ preventScroll: true });
  },
};

gallery.field("filters").addEventListener("input", () => gallery.update());
gallery.field("filters").addEventListener("submit", (event) => event.preventDefault());
gallery.field("clear").addEventListener("click", () => gallery.clear());
gallery.field("more").addEventListener("click", () => gallery.more());
for (const cell of document.querySelectorAll("[data-predicted]")) {
  cell.addEventListener("click", () => gallery.showCell(cell.dataset.true, cell.dataset.predicted));
}
gallery.update();
