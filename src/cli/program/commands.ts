import type { CommandDefinition } from "../command.ts";
import type { TableEntry } from "../definitions.ts";

export interface CommandEntry extends TableEntry {
  /** The command's heading in the help. */
  group: string;
  load(): Promise<{ command: CommandDefinition }>;
}

const POINTS = "Save points";
const LOOK = "Looking";
const KEEP = "Keeping";
const CARE = "Care";
const BACKUPS = "Backups";
const MACHINES = "Machines";
const SETUP = "Setting up";

/** Commands that `cairn --help` shows; `cairn help --all` shows the others too. */
export const MAIN_COMMANDS: ReadonlySet<string> = new Set(
  "save restore undo redo rewind fork turns history why find status diff show ui pin cleanup verify doctor backup agent service".split(
    " ",
  ),
);

/** Every command, in the order of the help. Only the called command gets loaded. */
export const COMMANDS: Readonly<Record<string, CommandEntry>> = {
  save: { group: POINTS, summary: "save the folder as it is now", load: () => import("../commands/save.ts") },
  restore: {
    group: POINTS,
    summary: "make the folder, or some paths, equal to a save point",
    load: () => import("../commands/going-back/restore.ts"),
  },
  undo: {
    group: POINTS,
    summary: "revert the last restore, rewind or adoption",
    load: async () => ({ command: (await import("../commands/going-back/undo.ts")).undo }),
  },
  redo: {
    group: POINTS,
    summary: "bring back what undo reverted",
    load: async () => ({ command: (await import("../commands/going-back/undo.ts")).redo }),
  },
  adopt: {
    group: POINTS,
    summary: "make the folder equal to a fork",
    load: () => import("../commands/going-back/adopt.ts"),
  },
  rewind: {
    group: POINTS,
    summary: "restore the state before an agent's turn",
    load: () => import("../commands/going-back/rewind.ts"),
  },
  turns: {
    group: LOOK,
    summary: "list the turns of coding agents",
    load: () => import("../commands/looking/turns.ts"),
  },
  operations: {
    group: LOOK,
    summary: "list what changed the folder, and what can be undone",
    load: () => import("../commands/looking/operations.ts"),
  },
  run: { group: POINTS, summary: "save, run a command, save again", load: () => import("../commands/run.ts") },
  fork: {
    group: POINTS,
    summary: "start a new workspace from a save point",
    load: () => import("../commands/fork.ts"),
  },
  export: {
    group: POINTS,
    summary: "write a save point as a directory to copy anywhere",
    load: async () => ({ command: (await import("../commands/export-directory.ts")).exportCommand }),
  },
  import: {
    group: POINTS,
    summary: "create a workspace from an export, with its origin",
    load: async () => ({ command: (await import("../commands/export-directory.ts")).importCommand }),
  },
  clone: {
    group: POINTS,
    summary: "create an independent workspace from an export",
    load: async () => ({ command: (await import("../commands/export-directory.ts")).cloneCommand }),
  },
  history: {
    group: LOOK,
    summary: "list the save points, newest first",
    load: () => import("../commands/looking/history.ts"),
  },
  why: {
    group: LOOK,
    summary: "list the save points that changed a path",
    load: () => import("../commands/looking/why.ts"),
  },
  find: {
    group: LOOK,
    summary: "search names in all save points",
    load: () => import("../commands/looking/find.ts"),
  },
  bisect: {
    group: LOOK,
    summary: "find the first bad save point by running a command",
    load: () => import("../commands/bisect.ts"),
  },
  status: {
    group: LOOK,
    summary: "show changes since the last save point",
    load: () => import("../commands/looking/status.ts"),
  },
  diff: {
    group: LOOK,
    summary: "compare two save points, or one with the folder",
    load: () => import("../commands/looking/diff.ts"),
  },
  show: {
    group: LOOK,
    summary: "list a save point's entries or print one of its files",
    load: () => import("../commands/looking/show.ts"),
  },
  view: {
    group: LOOK,
    summary: "open a save point as a read-only folder",
    load: () => import("../commands/looking/view.ts"),
  },
  ui: {
    group: LOOK,
    summary: "open a page in the browser with all save points",
    load: () => import("../commands/ui.ts"),
  },
  hooks: {
    group: KEEP,
    summary: "set commands around saves, such as dumps",
    load: () => import("../commands/hooks.ts"),
  },
  pin: { group: KEEP, summary: "protect a save point from every cleanup", load: () => import("../commands/pin.ts") },
  unpin: {
    group: KEEP,
    summary: "remove a save point's protection",
    load: async () => ({ command: (await import("../commands/pin.ts")).unpin }),
  },
  tag: { group: KEEP, summary: "add or remove a save point's tags", load: () => import("../commands/tag.ts") },
  cleanup: {
    group: KEEP,
    summary: "remove save points by rules or by name, or paths from all points",
    load: () => import("../commands/cleanup/index.ts"),
  },
  verify: {
    group: CARE,
    summary: "read save points again and check them for damage",
    load: () => import("../commands/verify.ts"),
  },
  seal: {
    group: CARE,
    summary: "read save points that are clones into the store",
    load: () => import("../commands/seal.ts"),
  },
  doctor: { group: CARE, summary: "find and repair problems", load: () => import("../commands/doctor.ts") },
  store: {
    group: CARE,
    summary: "show where the store is, and how restic opens it",
    load: () => import("../commands/store.ts"),
  },
  inspect: {
    group: CARE,
    summary: "decode and print a file that Cairn wrote",
    load: () => import("../commands/inspect.ts"),
  },
  backup: {
    group: BACKUPS,
    summary: "back save points up into a repository",
    load: () => import("../commands/backup/index.ts"),
  },
  receipt: {
    group: BACKUPS,
    summary: "verify the signed record of a restore",
    load: () => import("../commands/receipt/index.ts"),
  },
  database: {
    group: BACKUPS,
    summary: "copy and restore SQLite databases in use",
    load: () => import("../commands/database/index.ts"),
  },
  bundle: {
    group: BACKUPS,
    summary: "export, verify and import context stores as bundles",
    load: () => import("../commands/bundle/index.ts"),
  },
  context: {
    group: BACKUPS,
    summary: "store and search documents for agents",
    load: () => import("../commands/context/index.ts"),
  },
  "serve-context": {
    group: BACKUPS,
    summary: "serve a context store to OpenViking's clients",
    load: () => import("../commands/serve-context.ts"),
  },
  "serve-repository": {
    group: BACKUPS,
    summary: "serve repositories to other machines",
    load: () => import("../commands/serve-repository.ts"),
  },
  agent: {
    group: SETUP,
    summary: "make coding agents save as they work",
    load: () => import("../commands/agent/index.ts"),
  },
  mcp: {
    group: SETUP,
    summary: "serve save points to an agent as MCP tools",
    load: () => import("../commands/mcp.ts"),
  },
  due: {
    group: BACKUPS,
    summary: "save, back up and check the folders that are due",
    load: () => import("../commands/backup/due.ts"),
  },
  schedule: {
    group: BACKUPS,
    summary: "show or change what runs when on a folder",
    load: () => import("../commands/schedule.ts"),
  },
  vm: {
    group: MACHINES,
    summary: "save, clone and restore virtual machines",
    load: () => import("../commands/vm/index.ts"),
  },
  daemon: {
    group: SETUP,
    summary: "run the daemon, which serves workspaces to programs",
    load: () => import("../commands/daemon.ts"),
  },
  service: {
    group: SETUP,
    summary: "install and inspect the daemon",
    load: () => import("../commands/service/index.ts"),
  },
  init: { group: SETUP, summary: "make a folder a workspace", load: () => import("../commands/init.ts") },
  workspaces: {
    group: SETUP,
    summary: "list the workspaces",
    load: () => import("../commands/workspaces.ts"),
  },
  relocate: {
    group: SETUP,
    summary: "tell Cairn that a folder has moved",
    load: () => import("../commands/relocate.ts"),
  },
  release: { group: SETUP, summary: "end a workspace; its files stay", load: () => import("../commands/release.ts") },
  engine: {
    group: SETUP,
    summary: "show or change a folder's engine",
    load: () => import("../commands/engine.ts"),
  },
  completion: {
    group: SETUP,
    summary: "print a completion script for a shell",
    load: () => import("../completion/print-script.ts"),
  },
  __complete: {
    group: SETUP,
    summary: "print words for the shell's completion",
    hidden: true,
    load: () => import("../completion/complete-points.ts"),
  },
};
