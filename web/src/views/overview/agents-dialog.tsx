import { useSignal } from "@preact/signals";
import type { AgentsIn, InstalledAgent } from "cairnstate/client";
import type { JSX } from "preact";
import { problemOf, useResource } from "../../app/resource.ts";
import { client } from "../../app/session.ts";
import { Dialog } from "../../parts/dialog.tsx";
import { Name, PathName, Words } from "../../parts/name.tsx";
import { type Found, Late, Problem } from "../../parts/problem.tsx";
import { When } from "../../parts/values.tsx";

type Agent = AgentsIn["agents"][number];

/** Lists the coding agents of a workspace. Installs and removes their hooks after it has shown which files change. */
export function AgentsDialog({ workspace, close }: { workspace: string; close(): void }): JSX.Element {
  const { value, problem, reload } = useResource(`agents ${workspace}`, async () => client().agents(workspace), {
    isFresh: true,
  });
  const agents = value.value?.[0]?.agents;
  return (
    <Dialog title="Agents" close={close}>
      <div class="stack">
        <p class="faint">Hooks save the folder before and after each turn and tool call of an agent.</p>
        {problem.value !== null && <Problem problem={problem.value} again={reload} />}
        {agents === undefined && problem.value === null && <Late isLate />}
        <ul class="overview-list">
          {agents?.map((each) => (
            <AgentRow key={each.tool} workspace={workspace} agent={each} changed={reload} />
          ))}
        </ul>
      </div>
    </Dialog>
  );
}

type Work = "install" | "remove";
const NAMES: Readonly<Record<Work, readonly [title: string, busy: string]>> = {
  install: ["Install", "Installing…"],
  remove: ["Remove", "Removing…"],
};

function AgentRow({
  workspace,
  agent: { tool, covered, last_prompt: prompt, problems },
  changed,
}: {
  workspace: string;
  agent: Agent;
  changed(): void;
}): JSX.Element {
  const work: Work = covered ? "remove" : "install";
  const [title, busy] = NAMES[work];
  const plan = useSignal<InstalledAgent | null>(null);
  const problem = useSignal<Found | null>(null);
  const isBusy = useSignal(false);
  const ask = async (isPlan: boolean): Promise<void> => {
    isBusy.value = true;
    problem.value = null;
    try {
      const asked = { workspace, tool, plan: isPlan };
      const told = await (work === "install" ? client().installAgent(asked) : client().removeAgent(asked));
      plan.value = isPlan ? told : null;
      if (told.problem !== null) problem.value = { code: "internal", message: told.problem };
      if (!isPlan) changed();
    } catch (error) {
      problem.value = problemOf(error);
    } finally {
      isBusy.value = false;
    }
  };
  return (
    <li class="agent-row">
      <strong>
        <Name text={tool} />
      </strong>
      <span class="space">
        {covered ? <span class="badge good">saves this folder</span> : <Uncovered prompt={prompt} />}
      </span>
      {plan.value === null && (
        <button type="button" disabled={isBusy.value} onClick={() => void ask(true)} aria-label={`${title} ${tool}…`}>
          {title}…
        </button>
      )}
      {problems.map((each) => (
        <p key={each} class="modified">
          <Words text={each} isWhole />
        </p>
      ))}
      {plan.value !== null && (
        <div class="stack">
          <Files work={work} files={plan.value.files} />
          <button type="button" class="strong" disabled={isBusy.value} onClick={() => void ask(false)}>
            {isBusy.value ? busy : `${title} ${tool}`}
          </button>
        </div>
      )}
      {problem.value !== null && <Problem problem={problem.value} />}
    </li>
  );
}

function Files({ work, files }: { work: Work; files: InstalledAgent["files"] }): JSX.Element {
  if (work === "remove" && !files.some(({ changed }) => changed))
    return <p>No file changes, because the hooks serve other folders, too. They do not save this folder any more.</p>;
  return (
    <>
      <p>
        {work === "install"
          ? "These files change, and nothing else in them:"
          : "The hooks go from these files. Nothing else in them changes, and the save points stay:"}
      </p>
      <ul class="overview-list">
        {files.map(({ path, changed }) => (
          <li key={path}>
            <PathName path={path} /> {!changed && <span class="faint">stays as it is</span>}
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
