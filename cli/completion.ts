import type { CommandUnknownOpts } from "@commander-js/extra-typings";

/** Shells a script can be made for. */
export type Shell = "bash" | "zsh" | "fish";

interface Entry {
  /** Words after `hypercore` that lead here. */
  path: string;
  commands: readonly { name: string; description: string }[];
  flags: readonly { name: string; description: string; takesValue: boolean }[];
}

/** Completion script of the program, made from its command tree. */
export function completionScript(program: CommandUnknownOpts, shell: Shell): string {
  const entries = collect(program);
  switch (shell) {
    case "bash":
      return bash(entries);
    case "zsh":
      return `#compdef hypercore\nautoload -U +X bashcompinit && bashcompinit\n${bash(entries)}`;
    case "fish":
      return fish(entries);
  }
}

function collect(command: CommandUnknownOpts, path: string[] = []): Entry[] {
  const children = command.commands;
  const entry: Entry = {
    path: path.join(" "),
    commands: children.flatMap((child) =>
      [child.name(), ...child.aliases()].map((name) => ({ name, description: child.description() }))
    ),
    flags: command.options.filter((option) => !option.hidden && option.long).map((option) => ({
      name: option.long!,
      description: option.description,
      takesValue: option.required || option.optional,
    })),
  };
  return [
    entry,
    ...children.flatMap((child) =>
      [child.name(), ...child.aliases()].flatMap((name) => collect(child, [...path, name]))
    ),
  ];
}

function bash(entries: readonly Entry[]): string {
  const cases = entries.map((entry) => {
    const commands = entry.commands.map(({ name }) => name).join(" ");
    const flags = entry.flags.map(({ name }) => name).join(" ");
    return `    ${quote(entry.path)}) commands=${quote(commands)} flags=${quote(`${flags} --help`)} ;;`;
  });
  const paths = entries.filter(({ path }) => path !== "").map(({ path }) => quote(path)).join(" | ");
  return `_hypercore() {
  local current=\${COMP_WORDS[COMP_CWORD]} path= word commands= flags=
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case "\${path:+$path }$word" in
      ${paths}) path="\${path:+$path }$word" ;;
    esac
  done
  case $path in
${cases.join("\n")}
  esac
  case $current in
    -*) COMPREPLY=($(compgen -W "$flags" -- "$current")) ;;
    *) COMPREPLY=($(compgen -W "$commands" -- "$current")) ;;
  esac
}
complete -o default -F _hypercore hypercore
`;
}

function fish(entries: readonly Entry[]): string {
  const lines: string[] = ["complete -c hypercore -f"];
  for (const { path, commands, flags } of entries) {
    const names = commands.map(({ name }) => name).join(" ");
    const condition = path === ""
      ? "__fish_use_subcommand"
      : path.split(" ").map((word) => `__fish_seen_subcommand_from ${word}`).join("; and ") +
        (names === "" ? "" : `; and not __fish_seen_subcommand_from ${names}`);
    for (const { name, description } of commands) {
      lines.push(`complete -c hypercore -n ${quote(condition)} -a ${name} -d ${quote(description)}`);
    }
    for (const { name, description, takesValue } of flags) {
      const value = takesValue ? " -r -F" : "";
      lines.push(
        `complete -c hypercore -n ${quote(condition)} -l ${name.slice(2)}${value} -d ${quote(description)}`,
      );
    }
  }
  return `${lines.join("\n")}\n`;
}

function quote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
