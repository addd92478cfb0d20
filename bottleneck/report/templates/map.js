// The map of the features: a picture beside the pointer, and classes singled out.
{
  const map = document.getElementById("feature-map");
  const peek = document.getElementById("peek");
  const show = (point) => {
    const i = Number(point.dataset.image);
    peek.querySelector("img").hidden = !DATA.pictures[i];
    if (DATA.pictures[i]) peek.querySelector("img").src = source(i);
    peek.querySelector("figcaption").textContent = `${caption(i)}, ${sureness(DATA.certainty[i])}`;
    peek.hidden = false;
    // Beside the point, on the side where there is room.
    const frame = map.parentElement.getBoundingClientRect();
    const at = point.getBoundingClientRect();
    const right = at.left - frame.left < frame.width / 2;
    const left = right ? at.right - frame.left + 10 : at.left - frame.left - peek.offsetWidth - 10;
    const top = at.top - frame.top - peek.offsetHeight / 2;
    peek.style.left = `${Math.max(0, Math.min(left, frame.width - peek.offsetWidth))}px`;
    peek.style.top = `${Math.max(0, Math.min(top, frame.height - peek.offsetHeight))}px`;
  };
  map?.addEventListener("pointerover", (event) => { if (event.target.matches("circle")) show(event.target); });
  map?.addEventListener("pointerout", () => { peek.hidden = true; });
  // Leave only the images of one class; all with "".
  const singleOut = (code) => {
    for (const point of map.children) {
      const own = DATA.true[Number(point.dataset.image)];
      point.classList.toggle("dim", code !== "" && own !== Number(code));
    }
  };
  const buttons = [...document.querySelectorAll(".map-legend button")];
  for (const button of buttons) {
    button.addEventListener("click", () => {
      const alone = button.getAttribute("aria-pressed") !== "true";
      buttons.forEach((other) => other.setAttribute("aria-pressed", String(alone && other === button)));
      singleOut(alone ? button.dataset.label : "");
    });
  }
  document.getElementById("map-label")?.addEventListener("input", (event) => singleOut(event.target.value));
}
