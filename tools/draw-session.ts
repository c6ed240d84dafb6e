import { spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";

/**
 * Draws docs/session.svg, the moving terminal at the top of the README: runs the commands in a new folder and draws
 * their output with fixed ids, times and places. A script plays the agent: it runs a shell command and the hooks that
 * `agent install` wrote. docs/session-still.svg has no motion. `--check` fails if a drawing differs from its file.
 */

const ROOT = path.resolve(import.meta.dirname, "..");
const PROMPT = "Remove the code that nobody uses";
const COMMANDS = ["cairn -q agent install claude-code", `agent "${PROMPT}"`, "ls", "cairn turns", "cairn rewind", "ls"];

/** Exit status of an agent whose hook was too slow to save in time, as on a busy machine: the session is played again. */
const TOO_SLOW = 75;
const ATTEMPTS = 20;

/** Returns the script that plays the agent. */
function agent(folder: string): string {
  const hook = (event: string, facts: object): string =>
    `if printf %s '${JSON.stringify({ session_id: "4f3a91c7", ...facts, cwd: folder, hook_event_name: event })}' | cairn agent hook claude-code --verbose | grep -q background; then exit ${TOO_SLOW}; fi`;
  const shell = { tool_name: "Bash", tool_input: { command: "rm -r src" } };
  return [
    "#!/bin/sh",
    hook("UserPromptSubmit", { prompt: PROMPT }),
    hook("PreToolUse", shell),
    "echo '  I run: rm -r src'",
    "rm -r src",
    hook("PostToolUse", shell),
    "echo '  Done. Nothing used src/.'",
    hook("Stop", {}),
    "",
  ].join("\n");
}

const COLUMNS = 88;
const LINE = 20;
const LETTER = 8.43;
const PADDING = 20;
const BAR = 36;

/** Runs the commands one after the other, as at a prompt. Returns null if a hook was too slow. */
function played(): string | null {
  const scratch = path.join(os.tmpdir(), `cairn-session-${process.pid}`);
  const folder = path.join(scratch, "shop");
  const state = path.join(scratch, "state");
  const bin = path.join(scratch, "bin");
  try {
    for (const each of [path.join(folder, "src"), bin]) mkdirSync(each, { recursive: true });
    writeFileSync(path.join(folder, "src/main.ts"), "export const port = 80;\n");
    writeFileSync(path.join(folder, "notes.md"), "# Shop\n");
    const cairn = `#!/bin/sh\nexec '${process.execPath}' '${ROOT}/dist/cli.js' "$@"\n`;
    for (const [name, script] of Object.entries({ cairn, agent: agent(folder) })) {
      writeFileSync(path.join(bin, name), script);
      chmodSync(path.join(bin, name), 0o755);
    }
    const env = { PATH: `${bin}:${process.env["PATH"]}`, HOME: scratch, XDG_STATE_HOME: state, CAIRN_SOCKET: "none" };
    let screen = "";
    for (const command of COMMANDS) {
      const { stdout, status } = spawnSync("sh", ["-c", `exec 2>&1; ${command}`], {
        cwd: folder,
        env,
        encoding: "utf8",
      });
      if (status === TOO_SLOW) return null;
      if (status !== 0) throw new Error(`${command}: exit ${status}: ${stdout}`);
      screen += `$ ${command}\n${stdout}`;
    }
    return alwaysTheSame(screen, { [state]: "/home/me/.local/state", [folder]: "/home/me/shop" });
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
    .replaceAll(/\b\d{4}-\d\d-\d\d \d\d:\d\d\b/g, "2026-11-26 10:24")
    .replaceAll(/\b[\d.]+ m?s\b/g, "40 ms");
}

/** Seconds from one step to the next: a command is one step, its output the next. Below: seconds that the end is shown. */
const STEP = 1.2;
const STAY = 5;

const escaped = (text: string): string => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

function drawn(screen: string, isMoving: boolean): string {
  const lines = screen
    .trimEnd()
    .split("\n")
    .flatMap((line) => line.match(new RegExp(`.{1,${COLUMNS}}(?= |$)|.{1,${COLUMNS}}`, "g")) ?? [""]);
  const width = Math.ceil(COLUMNS * LETTER + 2 * PADDING);
  const height = BAR + lines.length * LINE + PADDING;
  const steps: string[][] = [];
  for (const [i, line] of lines.entries()) {
    const isCommand = line.startsWith("$ ");
    if (isCommand || lines[i - 1]!.startsWith("$ ")) steps.push([]);
    const text = isCommand
      ? `<tspan class="prompt">$</tspan> <tspan class="command">${escaped(line.slice(2))}</tspan>`
      : escaped(line);
    steps.at(-1)!.push(`<text x="${PADDING}" y="${BAR + (i + 0.75) * LINE}">${text}</text>`);
  }
  const seconds = steps.length * STEP + STAY;
  const rows = steps.map((texts, i) => `<g class="s${i}">\n${texts.join("\n")}\n</g>`);
  const movements = steps.map((_, i) => {
    const begin = ((i * STEP * 100) / seconds).toFixed(2);
    return `.s${i} { animation: a${i} ${seconds}s step-end infinite } @keyframes a${i} { 0% { opacity: 0 } ${begin}% { opacity: 1 } }`;
  });
  const dots = ["#f7768e", "#e0af68", "#9ece6a"].map(
    (colour, i) => `<circle cx="${PADDING + 6 + i * 20}" cy="18" r="6" fill="${colour}"/>`,
  );
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" xml:space="preserve" viewBox="0 0 ${width} ${height}" role="img">
<title>A terminal: an agent removes a folder by a shell command, and one command brings it back</title>
<style>
text { font: 14px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", "Liberation Mono", monospace; white-space: pre; fill: #a9b1d6 }
.prompt { fill: #9ece6a }
.command { fill: #ffffff; font-weight: bold }
${isMoving ? movements.slice(1).join("\n") : ""}
</style>
<rect width="${width}" height="${height}" rx="8" fill="#1a1b26"/>
${dots.join("\n")}
${rows.join("\n")}
</svg>
`;
}

const { values } = parseArgs({ options: { check: { type: "boolean" } } });
const built = spawnSync(path.join(ROOT, "cairn"), ["--version"], { encoding: "utf8" });
if (built.status !== 0) throw new Error(`./cairn --version: ${built.stderr}`);
let screen: string | null = null;
for (let attempt = 0; screen === null; attempt++) {
  if (attempt === ATTEMPTS) throw new Error(`hooks could not save in time in ${ATTEMPTS} attempts`);
  screen = played();
}
for (const [name, isMoving] of [
  ["session", true],
  ["session-still", false],
] as const) {
  const picture = drawn(screen, isMoving);
  const file = path.join(ROOT, `docs/${name}.svg`);
  if (values.check !== true) writeFileSync(file, picture);
  else if (readFileSync(file, "utf8") !== picture) {
    process.stderr.write(
      `docs/${name}.svg is not what the commands print: node tools/draw-session.ts draws it anew\n${picture}`,
    );
    process.exitCode = 1;
  }
}
