// Dark or light: as the system is, until the reader chooses.

const STORED = "asr-theme";

/** onChange(): colours are others now. */
export function setUpTheme(button, onChange) {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  const isDark = () => (root.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const show = () => {
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", isDark() ? "Light colours" : "Dark colours");
    onChange();
  };
  const chosen = localStorage.getItem(STORED);
  if (chosen) root.dataset.theme = chosen;
  button.onclick = () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    localStorage.setItem(STORED, root.dataset.theme);
    show();
  };
  system.addEventListener("change", show);
  show();
}
