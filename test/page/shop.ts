import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import { deflateSync, crc32 } from "node:zlib";
import { cairnOk, SCRATCH } from "../fixtures/command.ts";

/** A workspace as an agent leaves it: by hand, two turns of one session, a database, a picture, a fork, tags and a pin. */

export interface Shop {
  folder: string;
  fork: string;
  /** Ids of save points by their messages. */
  ids: Readonly<Record<string, string>>;
  write(name: string, content: string | Uint8Array): void;
  save(message: string, ...args: string[]): string;
}

export function newFolder(name: string): string {
  const folder = path.join(SCRATCH, name);
  fs.mkdirSync(folder, { recursive: true });
  return folder;
}

export function makeShop(name: string): Shop {
  const folder = newFolder(name);
  const ids: Record<string, string> = {};
  const write = (file: string, content: string | Uint8Array): void => {
    fs.mkdirSync(path.dirname(path.join(folder, file)), { recursive: true });
    fs.writeFileSync(path.join(folder, file), content);
  };
  const save = (message: string, ...args: string[]): string => {
    const { save_point } = cairnOk(["save", folder, "-m", message, ...args]).data as {
      save_point: { save_point_id: string };
    };
    return (ids[message] = save_point.save_point_id);
  };
  const turn = (message: string, number: string, tool: string): string =>
    save(
      message,
      "--cause",
      JSON.stringify({
        kind: "tool_call",
        agent: "claude-code",
        session: "4f1c9a",
        turn: number,
        tool,
        event: "PostToolUse",
      }),
    );
  write(
    "src/total.ts",
    "export function total(items) {\n  let sum = 0;\n  for (const item of items) sum += item.price;\n  return sum;\n}\n",
  );
  write("docs/readme.md", "# Shop\n");
  write("img/logo.png", png(40, 20, [20, 110, 100]));
  write("blob.bin", Buffer.from([0, 1, 2, 3]));
  database(
    folder,
    "create table orders(id integer primary key, customer text, cents integer); insert into orders(customer, cents) values('Ada', 1200), ('Linus', 300)",
  );
  save("the template", "-t", "imported");
  write(
    "src/total.ts",
    "export function total(items) {\n  let sum = 0;\n  for (const item of items) sum += item.price;\n  return sum * 1.19;\n}\n",
  );
  turn("edit the total", "1", "Edit");
  write("src/a.ts", "export const a = 1;\n");
  write("src/deep/er/b.ts", "export const b = 1;\n");
  turn("write two files", "1", "Write");
  fs.rmSync(path.join(folder, "docs/readme.md"));
  write("img/logo.png", png(60, 20, [200, 90, 40]));
  write("blob.bin", Buffer.from([0, 1, 2, 4, 5]));
  database(
    folder,
    "update orders set cents = 1250 where id = 1; delete from orders where id = 2; insert into orders(customer, cents) values('Grace', 800)",
  );
  turn("a shell command", "2", "Bash");
  cairnOk(["pin", "latest", "-C", folder]);
  const fork = `${folder}-fork`;
  cairnOk(["fork", "latest", fork, "-C", folder]);
  write(
    "src/total.ts",
    "export function total(items) {\n\tlet sum = 0;\n\tfor (const item of items) sum += item.price;\n\treturn sum * 1.19;\n}\n",
  );
  save("tabs", "-t", "release-1");
  return { folder, fork, ids, write, save };
}

/** Makes a repository, keeps it for the folder, and backs a point up. Returns the id of the snapshot. */
export function backUp({ folder }: Pick<Shop, "folder">, point: string): string {
  const root = newFolder(`${path.basename(folder)}-backups`);
  const password = path.join(root, "password");
  fs.writeFileSync(password, "correct horse\n");
  const of = ["-C", folder, "-r", path.join(root, "repository"), "--password-file", password];
  cairnOk(["backup", "init", ...of]);
  cairnOk(["backup", "use", ...of]);
  const { snapshot } = cairnOk(["backup", "create", ...of, point]).data as { snapshot: { snapshot_id: string } };
  return snapshot.snapshot_id;
}

function database(folder: string, sql: string): void {
  fs.mkdirSync(path.join(folder, "data"), { recursive: true });
  const opened = new DatabaseSync(path.join(folder, "data/shop.db"));
  opened.exec(sql);
  opened.close();
}

/** A picture in one colour. */
function png(width: number, height: number, colour: readonly number[]): Buffer {
  const chunk = (type: string, data: Uint8Array): Buffer => {
    const body = Buffer.concat([Buffer.from(type), data]);
    const [length, sum] = [Buffer.alloc(4), Buffer.alloc(4)];
    length.writeUInt32BE(data.length);
    sum.writeUInt32BE(crc32(body));
    return Buffer.concat([length, body, sum]);
  };
  const head = Buffer.alloc(13);
  head.writeUInt32BE(width, 0);
  head.writeUInt32BE(height, 4);
  head.set([8, 2], 8);
  const line = Buffer.concat([Buffer.from([0]), ...Array.from({ length: width }, () => Buffer.from(colour))]);
  const rows = deflateSync(Buffer.concat(Array.from({ length: height }, () => line)));
  return Buffer.concat([
    Buffer.from("\x89PNG\r\n\x1a\n", "latin1"),
    chunk("IHDR", head),
    chunk("IDAT", rows),
    chunk("IEND", Buffer.alloc(0)),
  ]);
}

/** Names of the files of a zip archive, with their content. */
export function unzipped(archive: string): Record<string, string> {
  const script =
    "import sys, zipfile, json; z = zipfile.ZipFile(sys.argv[1]); print(json.dumps({i.filename: z.read(i).decode('latin1') for i in z.infolist() if not i.is_dir()}))";
  return JSON.parse(execFileSync("python3", ["-c", script, archive], { encoding: "utf8" })) as Record<string, string>;
}
