import { createHash, randomBytes } from "node:crypto";
import { rmSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import type { AgentsIn, FolderList, InstalledAgent, KeptByPage } from "../../contract/index.ts";
import { CairnError, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { durableMkdir, durableWrite } from "../../fs/durable.ts";
import { userStateDirectory } from "../../fs/users.ts";
import { readPassword } from "../../keep/password.ts";
import type { Body } from "../request.ts";
import { pathOf } from "../rights/arguments.ts";
import type { OpenWorkspaces } from "./open-workspaces.ts";

/** Requests of the page that are no calls: folders to choose from, agents, and a repository with its password. */

interface AskedChange {
  folder: string;
  tool: string;
  plan: string | null;
}

/** The work of `cairn agent` in the files of the user who started the page's server. */
export interface PageAgents {
  /** `folder` null: all folders in which agents work or have hooks. */
  status(folder: string | null): Promise<AgentsIn[]>;
  /** Installs or removes an agent's hooks as the plan with this id. Null: only tells which files would change. */
  change(verb: "install" | "remove", asked: AskedChange): Promise<InstalledAgent>;
  /** Ends the answer about all folders that is kept. */
  forget(): void;
}

export interface FirstUse {
  agents: PageAgents;
  workspaces: OpenWorkspaces;
  isReadOnly: boolean;
}

type Answer = (members: Body, use: FirstUse) => Promise<unknown>;

/** The most folders that a list has. */
const MOST = 500;
const PASSWORD_BYTES = 24;
const NAME_CHARACTERS = 16;
const TOOL = /^[a-z][a-z-]{0,39}$/;
const PLAN_ID = /^[0-9a-f]{32}$/;

const ANSWERS: Readonly<Record<string, Answer>> = {
  "/folders": async (members) => foldersIn(pathOf(members, "path")),
  "/agents": async (members, { agents }) =>
    agents.status((members["workspace"] ?? null) === null ? null : pathOf(members, "workspace")),
  "/agents/install": async (members, { agents }) => agents.change("install", askedOf(members)),
  "/agents/remove": async (members, { agents }) => agents.change("remove", askedOf(members)),
  "/repositories": keepRepository,
};

export function isFirstUse(url: string): boolean {
  return Object.hasOwn(ANSWERS, url);
}

/** Answers such a request. Throws `refused` if the page only looks, and the request is more than a look at agents. */
export async function answerFirstUse(url: string, members: Body, use: FirstUse): Promise<unknown> {
  if (use.isReadOnly && url !== "/agents")
    throw new CairnError("refused", "this page was started to look only", {
      hint: "start `cairn ui` without --read-only",
    });
  return ANSWERS[url]!(members, use);
}

/** Lists the folders in a folder, for a person who chooses one. Names that are not UTF-8 are left out, as nobody can type them. */
async function foldersIn(path: string): Promise<FolderList> {
  const folder = resolve(path);
  try {
    const entries = await readdir(folder, { withFileTypes: true });
    const names = entries.flatMap((each) => (each.isDirectory() && isShown(each.name) ? [each.name] : []));
    return { path: folder, folders: names.toSorted().slice(0, MOST) };
  } catch (error) {
    throw toCairnError(error, `list the folders in ${folder}`);
  }
}

const isShown = (name: string): boolean => !name.startsWith(".") && !name.includes("\ufffd");

/** Throws `usage` for a change without the id of the plan that the person was shown. */
function askedOf(members: Body): AskedChange {
  const { tool, plan } = members;
  const folder = pathOf(members, "workspace");
  if (typeof tool !== "string" || !TOOL.test(tool))
    throw new CairnError("usage", "tool must be the name of a coding agent, for example claude-code");
  if (plan === true) return { folder, tool, plan: null };
  if (typeof plan === "string" && PLAN_ID.test(plan)) return { folder, tool, plan };
  throw new CairnError("usage", "plan must be true, for the plan, or the id of the plan to carry out");
}

/**
 * Keeps a repository for a workspace, and never answers with its password.
 * - An existing one comes with the path of the file that has its password.
 * - A new one has a random password. Its steps: the password's file, by the repository's address, for this user alone →
 *   key and config ● → the record of the workspace.
 * - After a kill or a failure a repeated request reads the same file, and goes on if the config is there.
 * - Only a file that this request wrote, and that opens nothing, is removed.
 */
async function keepRepository(members: Body, { workspaces }: FirstUse): Promise<KeptByPage> {
  const workspace = pathOf(members, "workspace");
  const { repository } = members;
  if (typeof repository !== "string" || !/^(?:\/|[a-z0-9]+:)/.test(repository))
    throw new CairnError("usage", "repository must be an absolute path or an address such as sftp:host:/backups");
  const isNew = (members["passwordFile"] ?? null) === null;
  const { file, isWritten } = isNew
    ? passwordFileOf(repository)
    : { file: pathOf(members, "passwordFile"), isWritten: false };
  failpoint("new-repository.password");
  await workspaces.withLibrary(async (library) => {
    const sources = { file, variable: "PASSWORD", env: process.env, cwd: "/", question: "password" };
    const { bytes: password } = await readPassword(sources);
    const open = async (): Promise<void> => (await library.openRepository({ repository, password })).close();
    if (!isNew) return open();
    try {
      const made = await library.initRepository({ repository, password, like: workspace });
      failpoint("new-repository.made");
      await made.close();
    } catch (error) {
      const left = await open().catch((why: unknown) => toCairnError(why).code);
      if (left === undefined) return;
      if (isWritten && (left === "not_found" || left === "wrong_password")) rmSync(file, { force: true });
      throw error;
    }
  });
  const kept = await workspaces.with(workspace, async (client) =>
    client.setBackupRepository({ repository, passwordFile: file }),
  );
  return { repository: kept!.repository, password_file: file, made: isNew };
}

/** Returns this user's file with the password of a new repository. Writes a random one if there is no file yet. */
function passwordFileOf(repository: string): { file: string; isWritten: boolean } {
  const folder = join(userStateDirectory(), "passwords");
  const name = createHash("sha256").update(repository).digest("hex");
  const file = join(folder, name.slice(0, NAME_CHARACTERS));
  durableMkdir(folder, { mode: 0o700 });
  const password = Buffer.from(`${randomBytes(PASSWORD_BYTES).toString("base64url")}\n`);
  try {
    durableWrite(file, password, { mode: 0o600, exclusive: true });
  } catch (error) {
    if (toCairnError(error).code !== "already_exists") throw error;
    return { file, isWritten: false };
  }
  return { file, isWritten: true };
}
