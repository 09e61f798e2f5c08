/** A command line that is tried: a command and the words behind it. */
export interface Operation {
  readonly command: "run" | "devices" | "bind" | "unbind" | "doctor";
  readonly argv: readonly string[];
}
