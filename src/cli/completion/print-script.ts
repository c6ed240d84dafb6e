import type { CommandDefinition } from "../command.ts";
import { usage } from "../input.ts";

export const command: CommandDefinition = {
  name: "completion",
  answers: true,
  arguments: [{ name: "<shell>", text: "the shell: bash, zsh or fish", completes: ["bash", "zsh", "fish"] }],
  examples: [
    { line: "source <(cairn completion bash)", text: "put this line into ~/.bashrc" },
    { line: "cairn completion zsh > ~/.zfunc/_cairn", text: "write the script into a folder of zsh's fpath" },
    { line: "cairn completion fish > ~/.config/fish/completions/cairn.fish", text: "write the script for fish" },
  ],
  async run(context, input) {
    const shell = input.required(0);
    const { completionScript, SHELLS } = await import("./scripts.ts");
    const known = SHELLS.find((name) => name === shell);
    if (known === undefined)
      throw usage(`the shell must be one of ${SHELLS.join(", ")}; found ${JSON.stringify(shell)}`);
    const script = await completionScript(known, context.commands);
    return { data: { shell: known, script }, text: () => script };
  },
};
