import { signal } from "@preact/signals";

const query = matchMedia("(min-width: 1180px)");

/** True if the window is wide enough for two views. */
export const isWide = signal(query.matches);
query.addEventListener("change", () => (isWide.value = query.matches));
