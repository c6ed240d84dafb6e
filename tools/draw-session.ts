import { spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";

/**
 * Draws docs/session.svg, the terminal at the top of the README: it runs the commands in a folder of its own and draws what
 * they print. Ids, times and places are always the same. `--check` fails when the file is another.
 */

const ROOT = path.resolve(import.meta.dirname, "..");
const FILE = path.join(ROOT, "docs/session.svg");
const COMMANDS = [
  'cairn save -m "before the upgrade"',
  "rm -r src; echo broken >> notes.md",
  "cairn diff --stat",
  "cairn restore head",
  "cat notes.md",
];

const COLUMNS = 88;
const LINE = 20;
const LETTER = 8.43;
const PADDING = 20;
const BAR = 36;

/** Runs the commands one after the other, as at a prompt. */
function played(): string {
  const scratch = path.join(ROOT, ".runtime", `session-${process.pid}`);
  const folder = path.join(scratch, "shop");
  const state = path.join(scratch, "state");
  const bin = path.join(scratch, "bin");
  try {
    for (const each of [path.join(folder, "src"), bin]) mkdirSync(each, { recursive: true });
    writeFileSync(path.join(folder, "src/main.ts"), "export const port = 80;\n");
    writeFileSync(path.join(folder, "notes.md"), "# Shop\n");
    const cairn = path.join(bin, "cairn");
    writeFileSync(cairn, `#!/bin/sh\nexec '${process.execPath}' '${ROOT}/src/cli/program/entry.ts' "$@"\n`);
    chmodSync(cairn, 0o755);
    const env = { PATH: `${bin}:${process.env["PATH"]}`, HOME: scratch, XDG_STATE_HOME: state };
    const screen = COMMANDS.map((command) => {
      const { stdout, status } = spawnSync("sh", ["-c", `exec 2>&1; ${command}`], {
        cwd: folder,
        env,
        encoding: "utf8",
      });
      if (status !== 0) throw new Error(`${command}: exit ${status}: ${stdout}`);
      return `$ ${command}\n${stdout}`;
    });
    return alwaysTheSame(screen.join(""), { [state]: "/home/me/.local/state", [folder]: "/home/me/shop" });
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

function alwaysTheSame(screen: string, places: Readonly<Record<string, string>>): string {
  let text = screen;
  for (const [here, there] of Object.entries(places)) text = text.replaceAll(here, there);
  const ids = new Map<string, string>();
  const idOf = (found: string): string => {
    const short = found.slice(0, 8);
    if (!ids.has(short)) ids.set(short, (0x4f3a91c7 + 0x2b6d17e5 * ids.size).toString(16).slice(-8));
    return found.length === 8 ? ids.get(short)! : `${ids.get(short)!}…`;
  };
  return text
    .replaceAll(/\b[0-9a-f]{32}\b|\b[0-9a-f]{8}\b/g, idOf)
    .replaceAll(/engine [\w-]+/g, "engine copy")
    .replaceAll(/\b[\d.]+ m?s\b/g, "40 ms")
    .replaceAll(/stored [\d.]+ KiB/g, "stored 2.1 KiB");
}

const escaped = (text: string): string => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

function drawn(screen: string): string {
  const lines = screen
    .trimEnd()
    .split("\n")
    .flatMap((line) => line.match(new RegExp(`.{1,${COLUMNS}}(?= |$)|.{1,${COLUMNS}}`, "g")) ?? [""]);
  const width = Math.ceil(COLUMNS * LETTER + 2 * PADDING);
  const height = BAR + lines.length * LINE + PADDING;
  const rows = lines.map((line, i) => {
    const y = BAR + (i + 0.75) * LINE;
    const text = line.startsWith("$ ")
      ? `<tspan class="prompt">$</tspan> <tspan class="command">${escaped(line.slice(2))}</tspan>`
      : escaped(line);
    return `<text x="${PADDING}" y="${y}">${text}</text>`;
  });
  const dots = ["#f7768e", "#e0af68", "#9ece6a"].map(
    (colour, i) => `<circle cx="${PADDING + 6 + i * 20}" cy="18" r="6" fill="${colour}"/>`,
  );
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" xml:space="preserve" viewBox="0 0 ${width} ${height}" role="img">
<title>A terminal: a save point, a mistake, and the way back</title>
<style>
text { font: 14px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", "Liberation Mono", monospace; white-space: pre; fill: #a9b1d6 }
.prompt { fill: #9ece6a }
.command { fill: #ffffff; font-weight: bold }
</style>
<rect width="${width}" height="${height}" rx="8" fill="#1a1b26"/>
${dots.join("\n")}
${rows.join("\n")}
</svg>
`;
}

const { values } = parseArgs({ options: { check: { type: "boolean" } } });
const picture = drawn(played());
if (values.check !== true) writeFileSync(FILE, picture);
else if (readFileSync(FILE, "utf8") !== picture) {
  process.stderr.write(
    `docs/session.svg is not what the commands print: node tools/draw-session.ts draws it anew\n${picture}`,
  );
  process.exitCode = 1;
}
