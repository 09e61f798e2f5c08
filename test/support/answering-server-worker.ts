import { createServer } from "node:net";
import { parentPort, workerData } from "node:worker_threads";

/*
 * A vfio-user server in a thread. It answers the first message of each connection with the next of its `answers`,
 * unchanged. An empty answer hangs up. It posts "listening" and ends with its last connection.
 */

// Cast: the test makes this worker with exactly these data.
const { path, answers } = workerData as { readonly path: string; readonly answers: readonly Uint8Array[] };
let next = 0;
const server = createServer((socket) => {
  const answer = answers[next++];
  if (next === answers.length) server.close();
  socket.on("error", () => undefined); // the client may hang up first
  socket.once("data", () => {
    if (answer === undefined || answer.length === 0) socket.destroy();
    else socket.write(answer);
  });
});
server.listen(path, () => parentPort?.postMessage("listening"));
