import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import path from "node:path";
import { gunzipSync } from "node:zlib";
import { chromium, type Page } from "playwright-core";
import type { Client } from "../../../src/contract/index.ts";
import { multiplyPoints } from "../../../test/fixtures/many-points.ts";
import { href, type Route } from "../../../web/src/app/address.ts";
import type { Bench, OwnCase } from "../bench.ts";
import { limitBar, median, type Result } from "../result.ts";

const DIST = path.resolve(import.meta.dirname, "../../../dist");
const CHROMIUM = "/usr/bin/chromium";
const ENTRIES = 10_000;
const LINE = "a line of some length, as a program's source has them;\n";
const TEXT_LINES = 18_000;
/** Frames in which the timeline is scrolled from its beginning to its end. */
const STEPS = 300;

/** The page of `cairn ui` in headless Chromium: a long timeline, a wide folder, a long text, and a live row. */
export const page: OwnCase = {
  name: "page",
  data: null,
  async run(bench: Bench): Promise<Result> {
    const count = bench.quick ? 2_000 : 100_000;
    const { folder, long } = await makeWorkspaces(bench, count);
    const server = await startPage(folder);
    const browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox"] });
    const samples: Record<string, number[]> = {};
    const note = (name: string, ms: number): void => void (samples[name] ??= []).push(ms);
    try {
      const tab = await browser.newPage({ viewport: { width: 1280, height: 800 } });
      await tab.addInitScript(
        `globalThis.longest = 0; new PerformanceObserver((list) => { for (const { duration } of list.getEntries()) longest = Math.max(longest, duration); }).observe({ type: "longtask" })`,
      );
      await tab.goto(server.url);
      await tab.locator("main").waitFor();
      const { origin } = new URL(server.url);
      const open = async (to: Route, shown: string): Promise<number> => {
        await tab.goto("about:blank");
        await tab.goto(`${origin}/${href(to)}`);
        return shownAfter(tab, shown);
      };
      for (let round = 0; round < bench.repeats; round++) {
        note("first rows", await open({ view: "timeline", workspace: long }, ".point-message"));
        note("longest task", await longestTask(tab));
        const sought = `turn ${Math.floor((count * (round + 1)) / (bench.repeats + 2))}`;
        note("filter typed until its row", await filtered(tab, sought));
      }
      for (let round = 0; round < bench.repeats; round++) {
        const at = { path: `wide-${round % 5}` };
        const files: Route = { view: "files", workspace: folder, point: "latest", at };
        await open({ view: "files", workspace: folder, point: "latest", at: { path: "" } }, ".entry-name");
        note("folder, first", await change(tab, files, ".entry-name [title='entry-0.txt']"));
        await change(tab, { ...files, at: { path: "" } }, ".entry-name [title='wide-0']");
        note("folder, again", await change(tab, files, ".entry-name [title='entry-0.txt']"));
      }
      const point = newestPoint(folder);
      for (let round = 0; round < bench.repeats; round++) {
        await open({ view: "point", workspace: folder, point }, ".change-row, [role=treeitem]");
        const file: Route = { view: "point", workspace: folder, point, file: { path: "text.txt" } };
        note("text diff", await change(tab, file, ".text-diff"));
      }
      await open({ view: "timeline", workspace: folder }, ".point-message");
      for (let round = 0; round < bench.repeats; round++) {
        writeFileSync(path.join(folder, "live.txt"), `${round}\n`);
        const start = performance.now();
        command("save", folder, "-m", `live ${round} of all`);
        const saved = performance.now();
        await tab.getByText(`live ${round} of all`).first().waitFor();
        note("save until its row", performance.now() - saved);
        note("change until its row, save by command", performance.now() - start);
      }
      return resultOf(samples, count);
    } finally {
      await browser.close();
      server.child.kill("SIGINT");
    }
  },
};

function resultOf(samples: Record<string, number[]>, count: number): Result {
  const of = (name: string): number => median(samples[name]!);
  return {
    case: "page",
    unit: "ms",
    samples,
    bars: [
      limitBar("first rows", of("first rows"), 500, "ms"),
      limitBar("longest task", Math.max(...samples["longest task"]!), 50, "ms"),
      limitBar("filter typed until its row", of("filter typed until its row"), 500, "ms"),
      limitBar("folder, first", of("folder, first"), 300, "ms"),
      limitBar("folder, again", of("folder, again"), 100, "ms"),
      limitBar("text diff", of("text diff"), 300, "ms"),
      limitBar("change until its row, save by command", of("change until its row, save by command"), 1000, "ms"),
      limitBar("code of the first view, gzip", firstViewBytes(), 60_000, "bytes"),
    ],
    meaning: `${count} save points, folders of ${ENTRIES} entries and a text of 1 MB, in headless Chromium.`,
    notes: [`${firstViewBytes()} bytes of code of the first view`],
  };
}

/** Returns the bytes of the index, of the files that it names, and of the timeline's own files. */
function firstViewBytes(): number {
  const page = path.join(DIST, "page");
  const textOf = (file: string): string => gunzipSync(readFileSync(path.join(page, `${file}.gz`))).toString();
  const index = textOf("index.html");
  const all = readdirSync(path.join(page, "assets")).map((name) => name.replace(/\.gz$/, ""));
  const names = new Set(all.filter((name) => /\.(?:js|css)$/.test(name)));
  const wanted = new Set([...names].filter((name) => index.includes(name) || name.startsWith("timeline-")));
  // A set that grows while it is gone through: modules that these import at once.
  for (const name of wanted)
    for (const [, imported] of textOf(`assets/${name}`).matchAll(/(?:from|import)\s*"\.\/([^"]+)"/g))
      wanted.add(imported!);
  const size = (file: string): number => statSync(path.join(page, `${file}.gz`)).size;
  return [...wanted].reduce((sum, name) => sum + size(`assets/${name}`), size("index.html"));
}

interface Library {
  open(path: string): Promise<Client>;
}

/** Makes one workspace with wide folders and a long edited text, and one workspace with many points. */
async function makeWorkspaces(bench: Bench, count: number): Promise<{ folder: string; long: string }> {
  const root = bench.folder("page");
  rmSync(root, { recursive: true, force: true });
  const [folder, long] = [path.join(root, "wide"), path.join(root, "long")];
  Object.assign(process.env, { XDG_STATE_HOME: path.join(root, "state"), CAIRN_SOCKET: "none", NO_COLOR: "1" });
  const library = (await import(path.join(DIST, "index.js"))) as Library;
  for (let wide = 0; wide < 5; wide++) {
    mkdirSync(path.join(folder, `wide-${wide}`), { recursive: true });
    for (let i = 0; i < ENTRIES; i++) writeFileSync(path.join(folder, `wide-${wide}`, `entry-${i}.txt`), `${i % 50}\n`);
  }
  mkdirSync(long);
  const lines = Array.from({ length: TEXT_LINES }, (_, i) => `${i} ${LINE}`);
  writeFileSync(path.join(folder, "text.txt"), lines.join(""));
  command("init", folder);
  command("save", folder, "-m", "before");
  writeFileSync(
    path.join(folder, "text.txt"),
    lines.map((line, i) => (i % 90 === 0 ? `edited ${line}` : line)).join(""),
  );
  command("save", folder, "-m", "after");
  command("init", long);
  for (let i = 0; i < 20; i++) {
    writeFileSync(path.join(long, `file-${i}.txt`), `${i}\n`);
    command("save", long, "-m", `turn ${i}`);
  }
  const client = await library.open(long);
  multiplyPoints(client, { count });
  await (client as { close?(): Promise<void> }).close?.();
  return { folder, long };
}

function command(...args: string[]): Record<string, unknown> {
  const text = execFileSync(process.execPath, [path.join(DIST, "cli.js"), ...args, "--json"], { encoding: "utf8" });
  return (JSON.parse(text) as { data: Record<string, unknown> }).data;
}

function newestPoint(folder: string): string {
  const found = command("history", "-C", folder, "-n", "1")["save_points"] as { save_point_id: string }[];
  return found[0]!.save_point_id;
}

interface Server {
  child: ChildProcess;
  url: string;
}

async function startPage(folder: string): Promise<Server> {
  const child = spawn(process.execPath, [path.join(DIST, "cli.js"), "ui", folder, "--no-open"], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let said = "";
  for await (const text of child.stdout!.setEncoding("utf8").iterator({ destroyOnReturn: false })) {
    said += text as string;
    const url = /http:\S+#code=[\w-]{22}/.exec(said)?.[0];
    if (url !== undefined) return { child, url };
  }
  throw new Error(`cairn ui ended: ${said}`);
}

/** Script for the tab that waits until `selector` exists. */
const WAITED = "while (document.querySelector(selector) === null) await new Promise(requestAnimationFrame);";

/** Returns the milliseconds from the navigation until the tab shows an element, by the tab's own clock. */
async function shownAfter(tab: Page, selector: string): Promise<number> {
  return tab.evaluate(`(async (selector) => { ${WAITED} return performance.now(); })(${JSON.stringify(selector)})`);
}

/** Returns the milliseconds from a change of the view in the tab until the tab shows an element. */
async function change(tab: Page, to: Route, selector: string): Promise<number> {
  const script = `(async (selector, address) => { const from = performance.now(); location.hash = address;
    ${WAITED} return performance.now() - from; })`;
  return tab.evaluate(`${script}(${JSON.stringify(selector)}, ${JSON.stringify(href(to))})`);
}

/** Types a filter; returns the milliseconds until the tab shows the point with exactly this message as the first row. */
async function filtered(tab: Page, message: string): Promise<number> {
  return tab.evaluate(`(async (text) => {
    const field = document.querySelector(".filter input"), from = performance.now();
    field.value = text;
    field.dispatchEvent(new Event("input", { bubbles: true }));
    while (document.querySelector(".point-message")?.textContent.trim() !== text) await new Promise(requestAnimationFrame);
    return performance.now() - from;
  })(${JSON.stringify(message)})`);
}

/** Scrolls through all rows; returns the milliseconds of the longest task meanwhile. 0: none was long. */
async function longestTask(tab: Page): Promise<number> {
  return tab.evaluate(`(async () => {
    const list = document.querySelector(".virtual");
    longest = 0;
    for (let step = 1; step <= ${STEPS}; step++) {
      list.scrollTop = ((list.scrollHeight - list.clientHeight) * step) / ${STEPS};
      await new Promise(requestAnimationFrame);
    }
    while (list.querySelector(".waiting") !== null) await new Promise(requestAnimationFrame);
    return longest;
  })()`);
}
