import t from "tap";
import { Assembler } from "../../guests/assembler.ts";
import { fd } from "../../src/base/units.ts";
import { KvmVfioDevice } from "../../src/kvm/vfio-device.ts";
import { CODE, KvmGuest, missingKvm, stopWatchdog } from "../support/kvm-guest.ts";

const skip = missingKvm();
t.teardown(stopWatchdog);

t.test("KvmVfioDevice hands KVM the descriptor itself and passes on what KVM says of it", { skip }, (t) => {
  const guest = new KvmGuest(new Assembler(CODE).hlt());
  const device = new KvmVfioDevice(guest.vm);
  t.teardown(() => {
    device.close();
    guest.close();
  });
  // No VFIO file is needed to see that the number arrives: a closed descriptor and /dev/kvm are refused with different
  // errors.
  t.throws(() => device.addFile(fd(-1)), { name: "SyscallError", errno: "EBADF" });
  t.throws(() => device.addFile(guest.system.fd), { errno: "EINVAL", message: /^Cannot tell KVM about VFIO file/ });
  t.throws(() => device.removeFile(fd(-1)), { errno: "EBADF", message: /^Cannot take VFIO file -1 from KVM/ });
  t.throws(() => new KvmVfioDevice(guest.vm), { name: "SyscallError", errno: "EBUSY" }); // a machine has one
  t.end();
});
