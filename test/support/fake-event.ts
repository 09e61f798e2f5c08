import type { EventDescriptor } from "../../src/base/signals.ts";
import { type Fd, fd } from "../../src/base/units.ts";

/** Above all that a process may have open. */
const FIRST = 10_000_000;
let made = 0;

/** An eventfd by number alone: no descriptor of this process, for what nothing reads, watches or hands on. */
export class FakeEvent implements EventDescriptor {
  fd: Fd = fd(FIRST + made++);

  static readonly create = (): FakeEvent => new FakeEvent();

  close(): void {
    this.fd = fd(-1);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
