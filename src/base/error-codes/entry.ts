/** What is said of a code: on its page of docs/reference/errors.md, by `tsvmm help CODE`, and in messages. */
export interface ErrorEntry {
  /** A few words, no period. */
  readonly title: string;
  /** What the error means: sentences. */
  readonly meaning: string;
  /** How to see the state on the host: sentences with commands in backquotes. */
  readonly look: string;
  /** What ends the message in parentheses, unless the throw site knows better. No period. */
  readonly advice?: string;
  /** What to do: sentences, beyond the advice where there is some. */
  readonly remedy: string;
}
