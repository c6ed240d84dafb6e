import { Fields, goJsonText, parseJson, type JsonObject } from "../fields.ts";

/** A lock of a repository, shared or exclusive, with restic's own field names. */
export interface LockFile {
  /** RFC 3339; a lock older than 30 minutes is stale. */
  time: string;
  exclusive: boolean;
  hostname: string;
  username: string;
  pid: number;
  uid: number;
  gid: number;
  extra?: JsonObject;
}

export function encodeLock(lock: LockFile): Uint8Array {
  const { time, exclusive, hostname, username, pid, uid, gid, extra } = lock;
  const members: JsonObject = { time, exclusive, hostname, username, pid };
  if (uid !== 0) members["uid"] = uid;
  if (gid !== 0) members["gid"] = gid;
  return Buffer.from(goJsonText({ ...members, ...extra }), "utf8");
}

/** Throws `damaged`, naming the field. */
export function decodeLock(bytes: Uint8Array): LockFile {
  const fields = new Fields(parseJson(bytes, "lock"), "lock");
  const lock: LockFile = {
    time: fields.time("time"),
    exclusive: fields.boolean("exclusive"),
    hostname: fields.optionalText("hostname") ?? "",
    username: fields.optionalText("username") ?? "",
    pid: fields.optionalInteger("pid", 0x7fffffff),
    uid: fields.optionalInteger("uid", 0xffffffff),
    gid: fields.optionalInteger("gid", 0xffffffff),
  };
  const extra = fields.rest();
  if (Object.keys(extra).length > 0) lock.extra = extra;
  return lock;
}
