import { useSignal } from "@preact/signals";
import type { AgentsIn, InstalledAgent } from "cairnstate/client";
import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { nameOf } from "../../app/address.ts";
import { problemOf, useResource } from "../../app/resource.ts";
import { client } from "../../app/session.ts";
import { Dialog } from "../../parts/dialog.tsx";
import { Name, PathName, visible } from "../../parts/name.tsx";
import { type Found, Late, Problem } from "../../parts/problem.tsx";
import { Told, When } from "../../parts/values.tsx";
import { changeWords, doneWords, type Work } from "./change-words.ts";
import { promptWithoutHook } from "./facts.ts";

type Agent = AgentsIn["agents"][number];

/** Lists the coding agents of a workspace. Installs and removes their hooks after it has shown which files change. */
export function AgentsDialog({ workspace, close }: { workspace: string; close(): void }): JSX.Element {
  const { value, problem, reload } = useResource(`agents ${workspace}`, async () => client().agents(workspace), {
    isFresh: true,
  });
  const agents = value?.[0]?.agents;
  return (
    <Dialog title={`Agents in ${visible(nameOf(workspace))}`} close={close}>
      <div class="stack">
        <p class="faint">Hooks save the folder before and after each turn and tool call of an agent.</p>
        {problem !== null && <Problem problem={problem} again={reload} />}
        {agents === undefined && problem === null && <Late isLate />}
        <ul class="overview-list">
          {agents?.map((each) => (
            <AgentRow key={each.tool} workspace={workspace} agent={each} changed={reload} />
          ))}
        </ul>
      </div>
    </Dialog>
  );
}

const NAMES: Readonly<Record<Work, readonly [title: string, busy: string]>> = {
  install: ["Install", "Installing…"],
  remove: ["Remove", "Removing…"],
};

/** The plan of an installation or a removal, and the outcome. `press` shows the plan, or carries out the plan with an id. */
function useWork({ workspace, tool, work, changed }: { workspace: string; tool: string; work: Work; changed(): void }) {
  const plan = useSignal<InstalledAgent | null>(null);
  const problem = useSignal<Found | null>(null);
  const isBusy = useSignal(false);
  const done = useSignal<{ work: Work; told: InstalledAgent } | null>(null);
  const button = useRef<HTMLButtonElement>(null);
  const isAsked = useRef(false);
  // The button that was pressed has gone, or is another one now.
  useEffect(() => {
    if (!isBusy.value && isAsked.current) button.current?.focus();
    isAsked.current = isBusy.value;
  }, [isBusy.value]);
  /** Carries out the plan with this id. Without an id, shows the plan. */
  const ask = async (shown?: string): Promise<void> => {
    const asked = { workspace, tool, plan: shown ?? (true as const) };
    const told = await (work === "install" ? client().installAgent(asked) : client().removeAgent(asked));
    plan.value = shown === undefined ? told : null;
    done.value = shown === undefined ? null : { work, told };
    if (shown === undefined) return;
    problem.value = told.problem === null ? null : { code: "internal", message: told.problem };
    changed();
  };
  const press = async (shown?: string): Promise<void> => {
    isBusy.value = true;
    problem.value = null;
    try {
      await ask(shown).catch(async (error: unknown) => {
        problem.value = problemOf(error);
        if (problem.value.code === "stale_plan") await ask();
      });
    } catch (error) {
      problem.value = problemOf(error);
    } finally {
      isBusy.value = false;
    }
  };
  return { plan, problem, isBusy, done, button, press };
}

function AgentRow({ workspace, agent, changed }: { workspace: string; agent: Agent; changed(): void }): JSX.Element {
  const { tool, covered, installed, problems } = agent;
  const work: Work = covered ? "remove" : "install";
  const [title, busy] = NAMES[work];
  const { plan, problem, isBusy, done, button, press } = useWork({ workspace, tool, work, changed });
  return (
    <li class="agent-row">
      <strong>
        <Name text={tool} />
      </strong>
      <span class="space">
        {covered ? <span class="badge good">saves this folder</span> : <Uncovered prompt={promptWithoutHook(agent)} />}
      </span>
      {/* Another tool calls its hook by itself. */}
      {plan.value === null && !(covered && installed?.length === 0) && (
        <button
          ref={button}
          type="button"
          disabled={isBusy.value}
          onClick={() => void press()}
          aria-label={`${title} ${tool}…`}
        >
          {title}…
        </button>
      )}
      {problems.map((each) => (
        <p key={each} class="modified">
          <Told text={each} />
        </p>
      ))}
      {plan.value !== null && (
        <div class="stack">
          <Files work={work} files={plan.value.files} folder={workspace} />
          <button
            ref={button}
            type="button"
            class="strong"
            disabled={isBusy.value}
            onClick={() => void press(plan.value!.plan_id)}
          >
            {isBusy.value ? busy : `${title} the hooks of ${tool}`}
          </button>
        </div>
      )}
      <p class="faint" role="status">
        {done.value !== null && doneWords(done.value.work, done.value.told)}
      </p>
      {problem.value !== null && <Problem problem={problem.value} />}
    </li>
  );
}

function Files({ work, files, folder }: { work: Work; files: InstalledAgent["files"]; folder: string }): JSX.Element {
  if (work === "remove" && !files.some(({ changed }) => changed))
    return (
      <p>
        No file changes: only this folder's own entry in Cairn's list goes. Hooks for all workspaces, or for everybody
        in the project, go on saving it.
      </p>
    );
  return (
    <>
      {work === "install" ? (
        <p>
          The hooks are to save <Name text={folder} />. These files change, and nothing else in them:
        </p>
      ) : (
        <p>
          The hooks save no other folder than <Name text={folder} />, so they go from these files. Nothing else in them
          changes, and the save points stay:
        </p>
      )}
      <ul class="overview-list">
        {files.map((each) => (
          <li key={each.path}>
            <PathName path={each.path} /> <span class="faint">{changeWords(work, each)}</span>
          </li>
        ))}
      </ul>
    </>
  );
}

function Uncovered({ prompt }: { prompt: string | null }): JSX.Element {
  if (prompt === null) return <span class="faint">no hooks</span>;
  return (
    <span class="modified">
      works here without hooks, last <When at={prompt} />
    </span>
  );
}
