// Before the first paint: the theme chosen earlier, else the system's.
document.documentElement.dataset.theme =
  localStorage.getItem("tidewire-theme") ?? (matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark");
