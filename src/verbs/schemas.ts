/** Schemas that the files of the verbs have, for other rooms. */
export {
  ForgetOwnOptions,
  PruneOwnOptions,
  ListedReceipt,
  Receipts,
  VerificationDebt,
  DueResult,
  Schedule,
  ScheduleEdit,
  ScheduleRow,
} from "./backups/index.ts";
export { RemovePathsOptions, RemovePathsResult, SealWhenIdleOptions } from "./care/index.ts";
export { DaemonStatus, Reference, TokenCreated, TokenInfo, TokenOptions } from "./daemon/index.ts";
export {
  CaptureDatabaseOptions,
  CaptureDatabaseResult,
  DatabaseInfo,
  DatabaseList,
  RestoreDatabaseOptions,
  RestoreDatabaseResult,
} from "./databases/index.ts";
export { ImportDirectoryOptions, ImportDirectoryResult, InspectOptions, InspectResult } from "./folders/index.ts";
export {
  AgentEventsOptions,
  AgentEventsResult,
  DiffDatabaseOptions,
  DiffDatabaseResult,
  DiffTextOptions,
  DiffTextResult,
  FindNamesOptions,
  FindNamesResult,
} from "./looking/index.ts";
export {
  AdoptForkOptions,
  BisectOptions,
  BisectResult,
  BisectTest,
  MsgvaultPoints,
  RewindOptions,
} from "./points/index.ts";
export { DiffBackupsEntry, DiffBackupsOptions, DiffBackupsResult } from "./snapshots/index.ts";
