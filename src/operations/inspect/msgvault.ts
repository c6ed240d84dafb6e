import { configOf, MsgvaultRepository } from "../../bundle/msgvault/repository.ts";
import type { Inspected } from "./inspected.ts";

/** Shows a msgvault repository with the manifests of its snapshots; null for any other folder. */
export function inspectMsgvault(path: string): Inspected | null {
  const config = configOf(path);
  if (config === null) return null;
  using repository = MsgvaultRepository.open(path);
  const snapshots = repository
    .list()
    .map((each) => ("problem" in each ? { id: each.id, problem: each.problem.message } : each.manifest));
  return {
    format: "msgvault-repository",
    version: config.formatVersion,
    content: { repository_id: config.repositoryId, snapshots },
  };
}
