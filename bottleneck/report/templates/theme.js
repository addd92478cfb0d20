// The button that switches between light and dark; without it the page does as the system does.
document.documentElement.classList.add("has-scripts");
{
  const button = document.getElementById("theme");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const show = (isDark) => {
    button.textContent = isDark ? "Light" : "Dark";
    button.setAttribute("aria-label", isDark ? "Use light colours" : "Use dark colours");
    button.setAttribute("aria-pressed", String(Boolean(document.documentElement.dataset.theme)));
  };
  const current = () => (document.documentElement.dataset.theme || (dark.matches ? "dark" : "light")) === "dark";
  button.hidden = false;
  show(current());
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = current() ? "light" : "dark";
    show(current());
  });
  dark.addEventListener("change", () => show(current()));
}
