import fs, { existsSync, readlinkSync } from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { isMainThread } from "node:worker_threads";
import { CMSGHDR, MSGHDR, SOCKET, TERMIOS } from "../src/host/constants.ts";
import { libc } from "../src/host/libc.ts";
import { IOCTL } from "../src/kvm/abi.ts";
import { CREATE_DEVICE } from "../src/kvm/abi-structs.ts";
import { Opened } from "./opened.ts";

/*
 * Loaded before the program in every thread of a batch of tests (`--import`). Remembers what the C library and node:fs
 * have opened for src. At the thread's end it writes what is still open to the file that TSVMM_OPENED_REPORT names. The
 * one who opens closes: no thread of tsvmm closes what another one has opened.
 *
 * A thread that is terminated, or a process that ends by a signal, says nothing. Nor does a program that a test starts:
 * some end on purpose with a machine that runs.
 */

const opened = new Opened();

function descriptor(fd: number, call: string): number {
  if (fd >= 0) opened.opened(`descriptor ${fd}`, `descriptor ${fd} (${call})`);
  return fd;
}

const { open, openat, memfdCreate, eventfd, epollCreate, socket, accept4, close } = libc;
libc.open = (path, flags, mode) => descriptor(open(path, flags, mode), `open ${path}`);
libc.openat = (directory, path, flags, mode) => descriptor(openat(directory, path, flags, mode), `openat ${path}`);
libc.memfdCreate = (name, flags) => descriptor(memfdCreate(name, flags), `memfd ${name}`);
libc.eventfd = (initial, flags) => descriptor(eventfd(initial, flags), "eventfd");
libc.epollCreate = (flags) => descriptor(epollCreate(flags), "epoll");
libc.socket = (domain, type, protocol) => descriptor(socket(domain, type, protocol), "socket");
libc.accept4 = (fd, flags) => descriptor(accept4(fd, flags), "accepted socket");
libc.close = (fd) => {
  opened.closed(`descriptor ${fd}`);
  return close(fd);
};

const { ioctl, ioctlStruct } = libc;
const MADE_BY_IOCTL: Readonly<Record<number, string>> = {
  [IOCTL.KVM_CREATE_VM]: "VM",
  [IOCTL.KVM_CREATE_VCPU]: "vCPU",
  [TERMIOS.TIOCGPTPEER]: "pty",
};
libc.ioctl = (fd, request, argument) => {
  const result = ioctl(fd, request, argument);
  const what = MADE_BY_IOCTL[request];
  return what === undefined ? result : descriptor(result, what);
};
libc.ioctlStruct = (fd, request, bytes) => {
  const result = ioctlStruct(fd, request, bytes);
  if (result >= 0 && request === IOCTL.KVM_CREATE_DEVICE) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    descriptor(view.getUint32(CREATE_DEVICE.fd, true), "KVM device");
  }
  return result;
};

const { mmap, munmap } = libc;
libc.mmap = (address, sizeBytes, protection, flags, fd, offset) => {
  const found = mmap(address, sizeBytes, protection, flags, fd, offset);
  if (found >= 0) opened.mapped(found, sizeBytes, `mapping of ${sizeBytes} bytes`);
  return found;
};
libc.munmap = (address, sizeBytes) => {
  const result = munmap(address, sizeBytes);
  if (result === 0) opened.unmapped(address, sizeBytes);
  return result;
};

const { ioSetup, ioDestroy } = libc;
libc.ioSetup = (requests, context) => {
  const result = ioSetup(requests, context);
  const address = new DataView(context.buffer, context.byteOffset).getBigUint64(0, true);
  if (result >= 0) opened.opened(`context ${address}`, "context of asynchronous I/O");
  return result;
};
libc.ioDestroy = (context) => {
  opened.closed(`context ${context}`);
  return ioDestroy(context);
};

const { recvmsg } = libc;
libc.recvmsg = (fd, message, flags) => {
  const result = recvmsg(fd, message, flags);
  if (result >= 0) for (const received of receivedDescriptors(message)) descriptor(received, "received");
  return result;
};

/** Those of a message that are closed by `libc.close`: others are closed by a thread that does not tell. */
function receivedDescriptors(message: Uint8Array): readonly number[] {
  const header = new DataView(message.buffer, message.byteOffset, message.byteLength);
  const sizeBytes = Number(header.getBigUint64(MSGHDR.msg_controllen, true));
  const control = Number(header.getBigUint64(MSGHDR.msg_control, true));
  if (control === 0 || sizeBytes < CMSGHDR.size) return [];
  const view = new DataView(libc.view(control, sizeBytes));
  if (view.getInt32(CMSGHDR.cmsg_type, true) !== SOCKET.SCM_RIGHTS) return [];
  const end = Math.min(sizeBytes, Number(view.getBigUint64(CMSGHDR.cmsg_len, true)));
  const found: number[] = [];
  for (let at: number = CMSGHDR.size; at + 4 <= end; at += 4) found.push(view.getInt32(at, true));
  return found.filter((fd) => /^(anon_inode:\[eventfd\]|\/memfd:)/.test(readlinkSync(`/proc/self/fd/${fd}`)));
}

const { openSync, closeSync } = fs;
fs.openSync = (path, flags, mode) => descriptor(openSync(path, flags, mode), `open ${String(path)}`);
fs.closeSync = (fd) => {
  opened.closed(`descriptor ${fd}`);
  closeSync(fd);
};
syncBuiltinESMExports();

process.on("exit", () => {
  const report = process.env["TSVMM_OPENED_REPORT"];
  if (report === undefined || process.env["TSVMM_OPENED_PARENT"] !== String(process.ppid)) return;
  const thread = isMainThread ? "" : "in a worker: ";
  const lines = opened.left((fd) => existsSync(`/proc/self/fd/${fd}`));
  for (const line of lines) fs.appendFileSync(report, `${thread}${line}\n`);
});
