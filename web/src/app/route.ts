import { computed, signal } from "@preact/signals";
import { href, parse, type Route } from "./address.ts";

/** The present view of this tab, by its address. */

const address = signal(location.hash);
addEventListener("hashchange", () => (address.value = location.hash));

export const route = computed<Route>(() => parse(address.value));

export function go(to: Route, { replace = false } = {}): void {
  if (replace) history.replaceState(null, "", href(to));
  else location.hash = href(to);
  // The browser tells of the new address later.
  address.value = location.hash;
}
