/** Characters of a finished chunk, at least. */
const CHUNK = 16 << 10;

/**
 * The newest characters of a text that grows at its end. Appending and reading the end cost the same however long the
 * text is.
 *
 * A position counts characters since the first one, whether they are kept or not.
 */
export class TextHistory {
  /** How many characters are kept. */
  readonly limit: number;
  /** Whole chunks, oldest first. Beyond the limit they hold less than the oldest of them. */
  readonly #chunks: string[] = [];
  #chunked = 0; // characters in all chunks
  /** What follows the chunks, in pieces until somebody reads it or it is long enough for a chunk. */
  #pieces: string[] = [];
  #pending = 0; // characters in all pieces
  #end = 0;

  constructor(limit: number) {
    this.limit = limit;
  }

  /** Position of the oldest character that is kept. */
  get start(): number {
    return Math.max(0, this.#end - this.limit);
  }

  /** Position behind the newest character. */
  get end(): number {
    return this.#end;
  }

  /** Characters in memory: the limit may be exceeded by one chunk. */
  get retained(): number {
    return this.#chunked + this.#pending;
  }

  append(text: string): void {
    if (text === "") return;
    this.#pieces.push(text);
    this.#pending += text.length;
    this.#end += text.length;
    if (this.#pending < CHUNK) return;
    this.#chunks.push(this.#tail());
    this.#chunked += this.#pending;
    this.#pieces = [];
    this.#pending = 0;
    for (let oldest = this.#chunks[0]; oldest !== undefined; oldest = this.#chunks[0]) {
      if (this.#chunked - oldest.length < this.limit) break;
      this.#chunks.shift();
      this.#chunked -= oldest.length;
    }
  }

  /** What is kept from `position` on. The cost grows with the length of the answer, not of the text. */
  since(position: number): string {
    const length = this.#end - Math.max(position, this.start);
    let text = this.#tail();
    if (length > text.length) {
      let first = this.#chunks.length;
      for (let missing = length - text.length; missing > 0 && first > 0; missing -= this.#chunks[first]?.length ?? 0) {
        first--;
      }
      text = [...this.#chunks.slice(first), text].join("");
    }
    return text.slice(text.length - length);
  }

  /** The pieces as one flat string. */
  #tail(): string {
    if (this.#pieces.length > 1) this.#pieces = [this.#pieces.join("")];
    return this.#pieces[0] ?? "";
  }
}
