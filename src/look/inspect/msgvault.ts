import { MsgvaultRepository } from "../../bundle/msgvault/repository.ts";
import type { Inspected } from "./inspected.ts";

/** Shows a msgvault repository with the manifests of its snapshots; null for any other folder. */
export function inspectMsgvault(path: string): Inspected | null {
  using repository = MsgvaultRepository.at(path);
  if (repository === null) return null;
  const { config } = repository;
  const snapshots = repository
    .list()
    .map((each) => ("problem" in each ? { id: each.id, problem: each.problem.message } : each.manifest));
  return {
    format: "msgvault-repository",
    version: config.formatVersion,
    content: { repository_id: config.repositoryId, snapshots },
  };
}
