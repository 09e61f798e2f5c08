import t from "tap";
import { HostError } from "../../../src/base/errors.ts";
import { allOrNothing, UndoStack } from "../../../src/base/undo-stack.ts";

/** A stack whose steps write down their names; those in `failing` throw then. */
function stackOf(names: readonly string[], failing: readonly string[] = []) {
  const done: string[] = [];
  const undo = new UndoStack();
  for (const name of names) {
    undo.add(() => {
      done.push(name);
      if (failing.includes(name)) throw new HostError("TSVMM_HOST_CALL", `Cannot undo ${name}: EIO`);
    });
  }
  return { undo, done };
}

t.test("UndoStack.undo() runs the steps in reverse order, once", async (t) => {
  const { undo, done } = stackOf(["a", "b", "c"]);
  undo.undo();
  undo.undo();
  t.same(done, ["c", "b", "a"]);
});

t.test("UndoStack.undo() runs every step although some throw, and throws the first error then", async (t) => {
  const { undo, done } = stackOf(["a", "b", "c", "d"], ["b", "c"]);
  t.throws(() => undo.undo(), new HostError("TSVMM_HOST_CALL", "Cannot undo c: EIO"));
  t.same(done, ["d", "c", "b", "a"]);
});

t.test("UndoStack.undo() throws also what a step throws that is no error", async (t) => {
  const undo = new UndoStack();
  undo.add(() => {
    throw undefined;
  });
  let hasThrown = false;
  try {
    undo.undo();
  } catch {
    hasThrown = true;
  }
  t.ok(hasThrown);
});

t.test("UndoStack.undo() runs a step that another step adds", async (t) => {
  const { undo, done } = stackOf(["a"]);
  undo.add(() => undo.add(() => done.push("late")));
  undo.undo();
  t.same(done, ["late", "a"]);
});

t.test("UndoStack.commit() keeps what was done", async (t) => {
  const { undo, done } = stackOf(["a"]);
  undo.commit();
  undo.undo();
  t.same(done, []);
});

t.test("UndoStack.move() leaves the steps to the new stack alone", async (t) => {
  const { undo, done } = stackOf(["a", "b"]);
  const moved = undo.move();
  undo.undo();
  t.same(done, [], "the old one has none");
  moved.undo();
  t.same(done, ["b", "a"]);
});

t.test("UndoStack.own() answers the thing, and gives it back by its Symbol.dispose or as told", async (t) => {
  const done: string[] = [];
  const undo = new UndoStack();
  const thing = { [Symbol.dispose]: () => done.push("disposed of") };
  t.equal(undo.own(thing), thing);
  t.equal(
    undo.own(7, (number) => done.push(`closed ${number}`)),
    7,
  );
  undo.undo();
  t.same(done, ["closed 7", "disposed of"]);
});

t.test("an UndoStack ends with the block that uses it", async (t) => {
  const { undo, done } = stackOf(["a", "b"]);
  {
    using _own = undo;
    t.same(done, []);
  }
  t.same(done, ["b", "a"]);
});

t.test("UndoStack.after() answers the error that it was given, with what could not be undone", async (t) => {
  const { undo, done } = stackOf(["a", "b"], ["a"]);
  const error = new HostError("TSVMM_HOST_CALL", "Cannot start: ENOSPC");
  t.equal(undo.after(error), error);
  t.equal(error.message, "Cannot start: ENOSPC; and what was done cannot be undone: Cannot undo a: EIO");
  t.same(done, ["b", "a"]);
});

t.test("allOrNothing() keeps what succeeds and undoes what fails", async (t) => {
  const done: string[] = [];
  const work = (undo: UndoStack): string => {
    undo.add(() => done.push("undone"));
    return "made";
  };
  t.equal(allOrNothing(work), "made");
  t.same(done, []);
  const error = new HostError("TSVMM_HOST_CALL", "Cannot go on: EIO");
  const failing = (): never =>
    allOrNothing((undo) => {
      work(undo);
      throw error;
    });
  t.throws(failing, error);
  t.same(done, ["undone"]);
});
