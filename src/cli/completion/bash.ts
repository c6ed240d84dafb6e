import { FILE_OPTIONS, FOLDER_OPTIONS } from "./words.ts";
import type { CommandWords, Completes, OptionWords } from "./words.ts";

const ACTIONS = {
  points: 'COMPREPLY=($(compgen -W "$(__cairn_points)" -- "$cur"))',
  files: "__cairn_paths -f",
  folders: "__cairn_paths -d",
  nothing: ":",
} as const;

function actionOf(completes: Completes): string {
  if (typeof completes === "string") return ACTIONS[completes];
  if ("or" in completes) return `${wordsAction(completes.words)}; ${ACTIONS[completes.or]}`;
  return wordsAction(completes);
}

function wordsAction(words: readonly string[]): string {
  return `COMPREPLY=($(compgen -W "${words.join(" ")}" -- "$cur"))`;
}

/** `command`: a pattern of the command that has the options. */
function valueCases(options: readonly OptionWords[], command: string): string[] {
  return options
    .filter(({ values }) => values.length > 0)
    .flatMap(({ words, values }) => words.map((word) => `    ${command}" ${word}") ${wordsAction(values)}; return ;;`));
}

/** Returns the commands and, by their whole names, their verbs. */
function withVerbs(commands: readonly CommandWords[]): CommandWords[] {
  return commands.flatMap((command) => [
    command,
    ...withVerbs(command.verbs.map((verb) => ({ ...verb, name: `${command.name} ${verb.name}` }))),
  ]);
}

export function bashScript(table: readonly CommandWords[], globals: readonly OptionWords[]): string {
  const commands = withVerbs(table);
  const groups = commands.filter(({ verbs }) => verbs.length > 0).map(({ name }) => `"${name}"`);
  const globalWords = globals.flatMap((option) => option.words);
  const valueWords = [...globals, ...commands.flatMap((command) => command.options)].filter(
    (option) => option.takesValue,
  );
  const withValue = [...new Set(valueWords.flatMap((option) => option.words))];
  const valued = [
    ...valueCases(globals, "*"),
    ...commands.flatMap(({ name, options }) => valueCases(options, `"${name}"`)),
  ];
  const cases = commands.map((command) => {
    const options = [...command.options.flatMap((option) => option.words), ...globalWords].join(" ");
    const last = command.arguments.length - 1;
    const places = command.arguments.map(
      (completes, i) => `          ${i === last ? "*" : i}) ${actionOf(completes)} ;;`,
    );
    const byPlace = places.length === 0 ? "" : `        case $place in\n${places.join("\n")}\n        esac\n`;
    return `      "${command.name}")\n        if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W "${options}" -- "$cur")); return; fi\n${byPlace}        ;;`;
  });
  return `# bash completion for cairn; made by \`cairn completion bash\`
__cairn_points() {
  cairn "\${chosen[@]}" __complete points 2>/dev/null | cut -f 1
}
__cairn_paths() {
  local found
  while IFS= read -r found; do COMPREPLY+=("$found"); done < <(compgen "$1" -- "$cur")
}
_cairn() {
  local cur=\${COMP_WORDS[COMP_CWORD]} word command= place=0 i
  local -a chosen=()
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=\${COMP_WORDS[i]}
    case $word in
      -C|--directory) chosen=(-C "\${COMP_WORDS[i + 1]}"); ((i++)) ;;
      ${withValue.filter((word) => word !== "-C" && word !== "--directory").join("|")}) ((i++)) ;;
      -*) ;;
      *) case $command in
        "") command=$word ;;
        ${groups.join("|")}) command="$command $word" ;;
        *) ((place++)) ;;
      esac ;;
    esac
  done
  case "$command \${COMP_WORDS[COMP_CWORD - 1]}" in
${valued.join("\n")}
  esac
  case \${COMP_WORDS[COMP_CWORD - 1]} in
    ${FOLDER_OPTIONS.join("|")}) ${ACTIONS.folders}; return ;;
    ${FILE_OPTIONS.join("|")}) ${ACTIONS.files}; return ;;
    ${withValue.filter((word) => !FOLDER_OPTIONS.includes(word) && !FILE_OPTIONS.includes(word)).join("|")}) return ;;
  esac
  case $command in
      "")
        if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W "${globalWords.join(" ")} --help --version" -- "$cur"))
        else COMPREPLY=($(compgen -W "${table.map(({ name }) => name).join(" ")}" -- "$cur")); fi
        ;;
${cases.join("\n")}
  esac
}
complete -o filenames -F _cairn cairn
`;
}
