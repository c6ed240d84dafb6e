import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { after, type TestContext } from "node:test";
import { type Browser, type BrowserContext, chromium, type Page } from "playwright-core";
import { href, type Route } from "../../web/src/app/address.ts";
import { newFolder } from "../fixtures/work.ts";
import { start, type Started } from "../fixtures/ui.ts";

/** The page of `cairn ui` in a real browser. */

const CHROMIUM = "/usr/bin/chromium";
export const SKIP = existsSync(CHROMIUM) ? false : "Debian's chromium is not installed";
/** Milliseconds for which anything is waited for. */
const DEADLINE_MS = 40_000;

let launched: Promise<Browser> | undefined;
after(async () => (await launched)?.close());

function browser(): Promise<Browser> {
  return (launched ??= chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox"] }));
}

export interface OpenOptions {
  args?: readonly string[];
  width?: number;
  height?: number;
  theme?: "light" | "dark";
  env?: Record<string, string>;
  /** Complaints of the browser that belong to the test. */
  expected?: RegExp;
}

export interface Opened {
  page: Page;
  context: BrowserContext;
  ui: Started;
  origin: string;
  /** Opens the address of a view in the tab. */
  go(to: Route): Promise<void>;
}

/** A tab that is signed in, at a workspace or at all of them. Complaints of the browser fail the test at its end, but for those that are `expected`. */
export async function open(
  t: TestContext,
  folder: string | null,
  { args = [], width = 1280, height = 800, theme = "light", env = {}, expected }: OpenOptions = {},
): Promise<Opened> {
  const complaints: string[] = [];
  const context = await (
    await browser()
  ).newContext({
    viewport: { width, height },
    colorScheme: theme,
    acceptDownloads: true,
    reducedMotion: "reduce",
  });
  context.setDefaultTimeout(DEADLINE_MS);
  // Before the server ends, of which the browser would complain.
  const ended: (() => void)[] = [];
  t.after(async () => {
    if (!(t as { passed?: boolean }).passed)
      for (const each of context.pages()) t.diagnostic(`${each.url()}: ${await each.innerText("body")}`);
    await context.close();
    for (const end of ended) end();
    assert.deepEqual(
      complaints.filter((each) => expected?.test(each) !== true),
      [],
    );
  });
  // The view that another test had open last is remembered in the cache.
  const own = { XDG_CACHE_HOME: newFolder("page-cache"), ...env };
  const ui = await start(t, [...(folder === null ? [] : [folder]), "--no-open", ...args], own);
  ended.push(() => ui.child.kill("SIGKILL"));
  const { origin } = new URL(ui.url);
  watch(context, origin, complaints);
  const page = await context.newPage();
  await page.goto(ui.url);
  await page.locator("main").waitFor();
  return {
    page,
    context,
    ui,
    origin,
    async go(to) {
      await page.goto(`${origin}/${href(to)}`);
    },
  };
}

function watch(context: BrowserContext, origin: string, complaints: string[]): void {
  context.on("console", (message) => {
    if (message.type() === "error" || message.type() === "warning") complaints.push(message.text());
  });
  context.on("weberror", (error) => complaints.push(String(error.error())));
  context.on("request", (request) => {
    const url = request.url();
    if (!url.startsWith(origin) && !url.startsWith("blob:") && !url.startsWith("data:"))
      complaints.push(`a request of ${url}`);
  });
  context.on("dialog", (dialog) => complaints.push(`a dialog: ${dialog.message()}`));
}
