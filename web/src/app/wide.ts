import { signal } from "@preact/signals";

const query = matchMedia("(min-width: 1180px)");

/** True where two views have room beside each other. */
export const isWide = signal(query.matches);
query.addEventListener("change", () => (isWide.value = query.matches));
