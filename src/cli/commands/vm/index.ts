import { group } from "../../command.ts";

const life = async () => import("./life.ts");
const states = async () => import("./states.ts");

export const command = group({
  name: "vm",
  examples: [
    { line: "cairn vm run web --image debian.qcow2 --memory 1G --nic user", text: "a machine of a disk image, booted" },
    { line: 'cairn vm save web -m "before the upgrade"', text: "disks, memory and devices, while it runs" },
    { line: "cairn vm clone web web-2", text: "a second one that goes on from there" },
    { line: "cairn vm restore web latest", text: "back to where it was saved" },
  ],
  verbs: {
    create: { summary: "make a machine", load: async () => ({ command: (await life()).create }) },
    run: { summary: "make a machine and boot it", load: async () => ({ command: (await life()).run }) },
    start: { summary: "boot a machine", load: async () => ({ command: (await life()).start }) },
    stop: { summary: "have a machine's guest end", load: async () => ({ command: (await life()).stop }) },
    list: { summary: "list the machines", load: async () => ({ command: (await life()).list }) },
    inspect: { summary: "tell all about a machine", load: async () => ({ command: (await life()).inspect }) },
    console: { summary: "speak to a machine", load: () => import("./console.ts") },
    rm: { summary: "remove a machine", load: async () => ({ command: (await life()).rm }) },
    save: { summary: "save a machine as a save point", load: async () => ({ command: (await states()).save }) },
    export: {
      summary: "write a saved state as a directory to be copied anywhere",
      load: async () => ({ command: (await states()).exportState }),
    },
    clone: { summary: "make a machine of a saved state", load: async () => ({ command: (await states()).clone }) },
    restore: {
      summary: "bring a machine back to a saved state",
      load: async () => ({ command: (await states()).restore }),
    },
  },
});
