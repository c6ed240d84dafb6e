import { FILE_OPTIONS, FOLDER_OPTIONS } from "./words.ts";
import type { CommandWords, Completes, OptionWords } from "./words.ts";

const ACTIONS = {
  points: "__cairn_points",
  files: "_files",
  folders: "_files -/",
  nothing: " ",
} as const;

function actionOf(completes: Completes): string {
  if (typeof completes === "string") return ACTIONS[completes];
  if ("or" in completes) return `{compadd -- ${completes.words.join(" ")}; ${ACTIONS[completes.or]}}`;
  return `(${completes.join(" ")})`;
}

export function zshScript(commands: readonly CommandWords[], globals: readonly OptionWords[]): string {
  const globalSpecs = globals.flatMap(optionSpecs);
  const names = commands.map((command) => `    ${quote(`${command.name}:${escapeColon(command.text)}`)}`);
  const caseOf = (command: CommandWords): string => {
    const last = command.arguments.length - 1;
    const places = command.arguments.map((completes, i) =>
      quote(`${i === last ? "*" : i + 1}:: :${actionOf(completes)}`),
    );
    const options = [...command.options.flatMap(optionSpecs), ...globalSpecs];
    if (command.verbs.length === 0) return `    ${command.name}) _arguments ${[...options, ...places].join(" ")} ;;`;
    const verb = quote(`1: :${actionOf(command.verbs.map(({ name }) => name))}`);
    return `    ${command.name})
      _arguments -C ${options.join(" ")} ${verb} '*:: :->verb'
      [[ $state = verb ]] && case $line[1] in
${command.verbs.map(caseOf).join("\n")}
      esac
      ;;`;
  };
  const cases = commands.map(caseOf);
  return `#compdef cairn
# zsh completion for cairn; made by \`cairn completion zsh\`
__cairn_points() {
  local -a points
  local line
  __cairn_directory
  for line in "\${(@f)$(cairn "\${chosen[@]}" __complete points 2>/dev/null)}"; do
    [[ -n $line ]] && points+=("\${line%%$'\\t'*}:\${\${line#*$'\\t'}//:/\\\\:}")
  done
  _describe -V 'save point' points
}
__cairn_directory() {
  local given=\${opt_args[-C]:-\${opt_args[--directory]}}
  [[ -n $given ]] && chosen=(-C "\${(Q)given}")
}
_cairn() {
  local -a chosen
  local curcontext=$curcontext state line
  local -A opt_args
  local -a commands=(
${names.join("\n")}
  )
  _arguments -C ${globalSpecs.join(" ")} '1: :->command' '*:: :->rest'
  __cairn_directory
  case $state in
    command) _describe command commands ;;
    rest)
  case $line[1] in
${cases.join("\n")}
  esac
    ;;
  esac
}
if [ "$funcstack[1]" = "_cairn" ]; then _cairn "$@"; else compdef _cairn cairn; fi
`;
}

function optionSpecs(option: OptionWords): string[] {
  const text = option.text.replace(/[[\]]/g, "").replaceAll(":", "\\:");
  return option.words.map((word) =>
    quote(`${word}[${text}]${option.takesValue ? `: :${valueAction(option, word)}` : ""}`),
  );
}

function valueAction({ values }: OptionWords, word: string): string {
  if (values.length > 0) return actionOf(values);
  if (FOLDER_OPTIONS.includes(word)) return "_files -/";
  return FILE_OPTIONS.includes(word) ? "_files" : " ";
}

function escapeColon(text: string): string {
  return text.replaceAll(":", "\\:");
}

function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
