import { effect, signal } from "@preact/signals";
import { type About, connect, type PageClient } from "cairnstate/client";
import { href, parse } from "./address.ts";
import { go, route } from "./route.ts";

/** Sign-in: a one-time code in the address, a token of this tab, or the token of another tab of the same server. */

const KEY = "token";
/** Milliseconds to wait for another tab's token; that tab may be busy. */
const ANSWER_MS = 1_000;

/** Milliseconds after which an open view is noted. */
const STAYED_MS = 500;

type TabMessage = { ask: "token" } | { token: string };
const tabs = new BroadcastChannel("cairn-session");

/** `null`: this tab is not signed in. */
export const token = signal<string | null>(sessionStorage.getItem(KEY));
/** Facts about the server, after sign-in. */
export const about = signal<About | null>(null);
/** Why nothing is going to run scheduled work; null if something does or may. */
export const unrun = (): string | null => about.value?.unrun ?? null;
export const isReadOnly = (): boolean => about.value?.read_only !== false;

tabs.addEventListener("message", ({ data }: MessageEvent<TabMessage>) => {
  if ("ask" in data && token.value !== null) tabs.postMessage({ token: token.value } satisfies TabMessage);
});

/** Client of the server with this tab's token. */
export function client(): PageClient {
  return connect({ token: token.value ?? "" });
}

/**
 * Signs in by a code in the address, this tab's token or another tab's token. False: the person has to enter a code.
 */
export async function signIn(): Promise<boolean> {
  const given = new URLSearchParams(location.hash.slice(1)).get("code");
  if (given !== null) {
    history.replaceState(null, "", `${location.pathname}#/`);
    if (await signInWith(given)) {
      const { start = null, view = null } = about.value ?? {};
      if (view !== null) go(parse(view), { replace: true });
      else if (start !== null) go({ view: "timeline", workspace: start }, { replace: true });
      return true;
    }
  }
  token.value ??= await tokenOfOtherTab();
  return token.value !== null && (await isAccepted());
}

/** Exchanges a one-time code. False: the server does not accept it. */
export async function signInWith(code: string): Promise<boolean> {
  const response = await fetch("/session", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ code }),
  });
  if (!response.ok) return false;
  keep(((await response.json()) as { token: string }).token);
  return isAccepted();
}

/** Notes each view of this tab, for the next `cairn ui` to begin with. */
export function noteViews(): void {
  let late: ReturnType<typeof setTimeout> | undefined;
  effect(() => {
    const view = href(route.value);
    clearTimeout(late);
    late = setTimeout(
      () =>
        void client()
          .noteView(view)
          .catch(() => undefined),
      STAYED_MS,
    );
  });
}

/** Forgets a token that the server no longer accepts. */
export function signOut(): void {
  sessionStorage.removeItem(KEY);
  token.value = null;
}

function keep(found: string): void {
  sessionStorage.setItem(KEY, found);
  token.value = found;
}

async function isAccepted(): Promise<boolean> {
  try {
    about.value = await client().about();
    keep(token.value!);
    return true;
  } catch (error) {
    if ((error as { code?: string }).code !== "permission") throw error;
    signOut();
    return false;
  }
}

function tokenOfOtherTab(): Promise<string | null> {
  const { promise, resolve } = Promise.withResolvers<string | null>();
  const hear = ({ data }: MessageEvent<TabMessage>): void => {
    if ("token" in data) resolve(data.token);
  };
  tabs.addEventListener("message", hear);
  tabs.postMessage({ ask: "token" } satisfies TabMessage);
  const late = setTimeout(() => resolve(null), ANSWER_MS);
  return promise.finally(() => {
    clearTimeout(late);
    tabs.removeEventListener("message", hear);
  });
}
